"""Multi-head attention: projections around any mechanism (Vaswani et al. 2017, section 3.2.2).

Cost: O(n c^2) for the projections, plus what the mechanism takes.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import nn
from torch.nn.functional import pad

from saccade.attention import Mechanism, to_mechanism
from saccade.attention.inputs import validate_key_mask
from saccade.attention.mechanism import arguments, input_sizes
from saccade.attention.patterns import Pattern
from saccade.attention.record import Record
from saccade.attention.weights import implied_weights
from saccade.errors import must_be, unknown
from saccade.nn.positions import POSITIONS, Position, carried
from saccade.shapes import Bool, Float, Tensor


class Memory(NamedTuple):
    """What queries from elsewhere look at, projected once for as many of them as come.

    Attributes:
        inputs: what the mechanism takes besides queries, each `[b g k d]`, in the order in which it names them.
        key_mask: True for real keys; all are, if `None`.
    """

    inputs: tuple[Tensor, ...]
    key_mask: Bool[Tensor, "b k"] | None


class AttentionState(NamedTuple):
    """Self-attention between one token and the next.

    Attributes:
        layer: the decoding state of the mechanism.
        position: where the next token stands, in every row of the batch.
    """

    layer: Any
    position: int


class MultiHeadAttention(nn.Module):
    """Project to heads, attend in each, and project the heads together back to the width.

    Exactly the inputs that the mechanism names are projected. Heads of keys and values may be fewer than heads
    of queries (grouped queries, Ainslie et al. 2023).

    Args:
        width: the model width c of inputs and output.
        heads: query heads; they divide the width.
        mechanism: a name (`"big_bird"`), an expression (`"local(left=64)"`), a spec, or a pattern.
        kv_heads: heads of keys and values; they divide `heads`, and are as many if not given.
        value_dim: dim of one head's values; that of its keys, `width // heads`, if not given.
        bias: whether the projections add a vector.
        layer: the number of the layer in its model, for mechanisms that draw something for each layer.
        position: what places queries and keys: `"rotary"`, `"alibi"`, or a `Position`. What a method adds to the
            input is left to whoever embeds the tokens.

    Raises:
        ValueError: sizes that do not divide each other, an unknown mechanism or position, or a position that the
            mechanism cannot carry.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mechanism: str | Mechanism | Pattern = "full",
        *,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        bias: bool = True,
        layer: int = 0,
        position: str | Position | None = None,
    ) -> None:
        super().__init__()
        if heads < 1:
            raise ValueError(must_be("heads", "at least 1", heads))
        if width < 1 or width % heads:
            raise ValueError(must_be("width", f"a positive multiple of the {heads} heads", width))
        kv_heads = heads if kv_heads is None else kv_heads
        if kv_heads < 1 or heads % kv_heads:
            raise ValueError(must_be("kv_heads", f"a divisor of the {heads} heads", kv_heads))
        head_dim = width // heads
        value_dim = head_dim if value_dim is None else value_dim
        if value_dim < 1:
            raise ValueError(must_be("value_dim", "at least 1", value_dim))
        self.width = width
        self.mechanism = to_mechanism(mechanism)
        self._claims = self.mechanism.claims
        sizes = input_sizes(heads, head_dim, kv_heads, value_dim)
        if missing := set(self.mechanism.inputs) - set(sizes):
            raise ValueError(unknown("input of a mechanism", min(missing), sizes))
        self.heads = {name: sizes[name][0] for name in self.mechanism.inputs}
        self.projections = nn.ModuleDict(
            {name: _linear(width, math.prod(sizes[name]), bias) for name in self.mechanism.inputs}
        )
        self.output = _linear(heads * value_dim, width, bias)
        self.position = carried(_named(position, width), self.mechanism)
        self.value_dim, extra = value_dim, self.position.extra_dims if self.position else 0
        self.layer = self.mechanism.build(heads, head_dim + extra, kv_heads, value_dim + extra, layer)

    def forward(
        self,
        x: Float[Tensor, "b q c"],
        context: Float[Tensor, "b k c"] | None = None,
        key_mask: Bool[Tensor, "b k"] | None = None,
        causal: bool = False,
        q_start: int = 0,
        record: Record | None = None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "b q c"]:
        """What each position of `x` takes from the context, or from `x` itself where there is none.

        Args:
            x: where the queries come from.
            context: where keys and values come from; `x` if not given.
            key_mask: True for real keys. Without a context it also hides what stands at these positions of
                `x` from the queries, so that NaN behind the mask reaches no gradient.
            causal: whether a query sees only keys up to its own position.
            q_start: the key position of the first query.
            record: takes what it asks for: `weights` `[b h q k]` of any mechanism, which cost extra calls, and what
                the mechanism has to tell.
            memory: what `memory(context, key_mask)` has made of them, in place of both.

        Raises:
            ValueError: another width, or something the mechanism does not claim.
        """
        self._refuse(x, context, causal)
        if memory is not None and (context is not None or key_mask is not None):
            raise ValueError(must_be("memory", "in place of context and key_mask, not beside them", "both"))
        if context is not None:
            memory = self.memory(context, key_mask)
        if memory is None:
            x = self._hidden(x, key_mask)
            parts = self._projected(x, self.projections)
        else:
            self._refuse_memory(x, memory)
            key_mask = memory.key_mask
            asked = self._projected(x, [name for name in self.projections if name == "q"])
            parts = asked | dict(zip(self._kept, memory.inputs, strict=True))
        parts = self._placed(parts, causal, q_start)
        options = {"key_mask": key_mask, "causal": causal, "q_start": q_start, **self._added(parts, causal, q_start)}
        out = self.layer(**arguments(parts), **options, record=record)
        if record is not None and "weights" in record:
            record.add("weights", implied_weights(self.layer, parts, **options))
        return self._joined(out)

    def memory(self, context: Float[Tensor, "b k c"], key_mask: Bool[Tensor, "b k"] | None = None) -> Memory:
        """The context as queries look at it: projected once, so that a decoding step projects only its token.

        Args:
            context: where keys and values come from.
            key_mask: True for real keys.

        Raises:
            ValueError: another width, a mask that does not fit, or a mechanism that does not claim `cross`.
        """
        self._refuse(None, context, causal=self._claims.causal_only)
        parts = self._projected(self._hidden(context, key_mask), self._kept)
        return Memory(tuple(parts.values()), key_mask)

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> AttentionState:
        """The state of causal self-attention before the first token.

        Args:
            batch: number of examples, all of which begin at position 0.
            dtype: dtype of the tokens to come, that of the projections if not given; the state has at least fp32.
            device: where the state is kept, beside the projections if not given.

        Raises:
            NotImplementedError: the mechanism does not claim `streaming`.
        """
        self._refuse_stream("initial_state")
        dtype, device = dtype or self.output.weight.dtype, device or self.output.weight.device
        return AttentionState(self.layer.initial_state(batch, dtype, device), 0)

    def prefill(
        self, x: Float[Tensor, "b n c"], key_mask: Bool[Tensor, "b n"] | None = None
    ) -> tuple[Float[Tensor, "b n c"], AttentionState]:
        """The first tokens at once, each seeing those before it: their outputs, and the state behind them.

        Args:
            x: the tokens, at positions `0 .. n - 1`.
            key_mask: True for real tokens. Others keep their places.

        Raises:
            NotImplementedError: the mechanism does not claim `streaming`.
            ValueError: another width, or a mask that does not fit.
        """
        self._refuse_stream("prefill")
        self._refuse(x, None, causal=True)
        parts = self._placed(self._projected(self._hidden(x, key_mask), self.projections), causal=True)
        out, state = self.layer.prefill(**arguments(parts), key_mask=key_mask)
        return self._joined(out), AttentionState(state, x.shape[1])

    def step(
        self, x: Float[Tensor, "b 1 c"], state: AttentionState, key_mask: Bool[Tensor, "b 1"] | None = None
    ) -> tuple[Float[Tensor, "b 1 c"], AttentionState]:
        """The next token: its output, and the state behind it.

        Args:
            x: the token, at `state.position`.
            state: the state behind the tokens before it, which is left as it is.
            key_mask: True where the token is real.

        Raises:
            NotImplementedError: the mechanism does not claim `streaming`.
            ValueError, TypeError: another width, more or fewer tokens than one, or a state of something else.
        """
        self._refuse_stream("step")
        self._refuse(x, None, causal=True)
        if not isinstance(state, AttentionState):
            constraint = "an AttentionState from initial_state, prefill or step"
            raise TypeError(must_be("state", constraint, type(state).__name__))
        parts = self._projected(self._hidden(x, key_mask), self.projections)
        parts = self._placed(parts, causal=True, q_start=state.position, k_start=state.position)
        out, after = self.layer.step(**arguments(parts), state=state.layer, key_mask=key_mask)
        return self._joined(out), AttentionState(after, state.position + 1)

    @property
    def _kept(self) -> list[str]:
        """The inputs of the mechanism that come from the tokens that are asked."""
        return [name for name in self.projections if name != "q"]

    def _hidden(self, x: Tensor, key_mask: Tensor | None) -> Tensor:
        """The tokens with zeros behind the mask."""
        if key_mask is None:
            return x
        validate_key_mask(key_mask, (x.shape[0], x.shape[1]), x.device)
        return x.masked_fill(~key_mask[..., None], 0)

    def _projected(self, x: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """The named inputs of the mechanism, by heads."""
        heads = self.heads
        return {name: rearrange(self.projections[name](x), "b n (h d) -> b h n d", h=heads[name]) for name in names}

    def _placed(self, parts: dict[str, Tensor], causal: bool, q_start: int = 0, k_start: int = 0) -> dict[str, Tensor]:
        """The inputs of the layer with queries and keys at their positions; keys may then be kept."""
        if self.position is None:
            return parts
        # Where queries are keys as well, they are placed once.
        q, k = self.position.on_qk(parts["q"], parts.get("k", parts["q"]), q_start, k_start, causal=causal)
        placed = {"q": q, "k": k} if "k" in parts else {"q": q}
        # Only where values are as wide as keys, torch's kernel is fused.
        return {**parts, **placed, "v": pad(parts["v"], (0, self.position.extra_dims))}

    def _added(self, parts: dict[str, Tensor], causal: bool, q_start: int) -> dict[str, Tensor]:
        """What the position adds to scores, as a layer takes it."""
        if self.position is None or not self.position.in_scores():
            return {}
        bias = self.position.on_scores(parts["q"], parts["k"], q_start, causal=causal)
        return {} if bias is None else {"bias": bias}

    def _joined(self, out: Float[Tensor, "b h n e"]) -> Float[Tensor, "b n c"]:
        """The heads, without what stands behind the values, together."""
        return self.output(rearrange(out[..., : self.value_dim], "b h n e -> b n (h e)"))

    def _refuse(self, x: Tensor | None, context: Tensor | None, causal: bool) -> None:
        for name, tensor in (("x", x), ("context", context)):
            if tensor is not None and (tensor.ndim != 3 or tensor.shape[-1] != self.width):
                constraint = f"of shape [batch, length, {self.width}] (the model width)"
                raise ValueError(must_be(name, constraint, tuple(tensor.shape)))
        if context is not None and not self._claims.cross:
            reason = f"{self.mechanism} does not claim cross attention: its queries and keys are one sequence"
            raise ValueError(must_be("context", f"None, as {reason}", tuple(context.shape)))
        if causal and not self._claims.causal:
            reason = f"{self.mechanism} does not claim causality: its outputs depend on later tokens"
            raise ValueError(must_be("causal", f"False, as {reason}", causal))
        if not causal and self._claims.causal_only:
            raise ValueError(must_be("causal", f"True, as {self.mechanism} has no other form", causal))

    def _refuse_memory(self, x: Tensor, memory: Memory) -> None:
        if not isinstance(memory, Memory) or len(memory.inputs) != len(self._kept):
            constraint = f"a Memory of {', '.join(self._kept)}, as `memory` returns"
            raise TypeError(must_be("memory", constraint, type(memory).__name__))
        if memory.inputs[0].shape[0] != x.shape[0]:
            raise ValueError(must_be("memory", f"of as many examples as x, {x.shape[0]}", memory.inputs[0].shape[0]))

    def _refuse_stream(self, method: str) -> None:
        if not self._claims.streaming:
            reason = "it keeps no state" if self._claims.causal else "its outputs depend on later tokens"
            raise NotImplementedError(f"{self.mechanism} does not claim streaming: {reason}, so it has no {method}")


def _named(position: str | Position | None, width: int) -> Position | None:
    """The position by its name.

    Raises:
        ValueError: an unknown name, or a method that has nothing to do in attention.
    """
    if not isinstance(position, str):
        return position
    known = {name for name, kind in POSITIONS.items() if kind.in_attention()}
    if position not in known:
        raise ValueError(unknown("position in attention", position, known))
    return POSITIONS[position](width, 1)


def _linear(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    """A projection that starts Glorot-uniform, with a bias of zero."""
    linear = nn.Linear(inputs, outputs, bias)
    nn.init.xavier_uniform_(linear.weight)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear

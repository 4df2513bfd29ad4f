"""Multi-head attention: projections around any mechanism (Vaswani et al. 2017, section 3.2.2).

Cost: O(n c^2) for the projections, plus what the mechanism takes.
"""

import math

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

        Raises:
            ValueError: another width, or something the mechanism does not claim.
        """
        self._refuse(x, context, causal)
        source = x if context is None else context
        if key_mask is not None:
            validate_key_mask(key_mask, (source.shape[0], source.shape[1]), source.device)
            source = source.masked_fill(~key_mask[..., None], 0)
            x = source if context is None else x
        parts = {
            name: rearrange(project(x if name == "q" else source), "b n (h d) -> b h n d", h=self.heads[name])
            for name, project in self.projections.items()
        }
        parts = self._placed(parts, causal, q_start)
        options = {"key_mask": key_mask, "causal": causal, "q_start": q_start, **self._added(parts, causal, q_start)}
        out = self.layer(**arguments(parts), **options, record=record)
        if record is not None and "weights" in record:
            record.add("weights", implied_weights(self.layer, parts, **options))
        return self._joined(out)

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

    def _joined(self, out: Float[Tensor, "b h q e"]) -> Float[Tensor, "b q c"]:
        """The heads, without what stands behind the values, together."""
        return self.output(rearrange(out[..., : self.value_dim], "b h q e -> b q (h e)"))

    def _refuse(self, x: Tensor, context: Tensor | None, causal: bool) -> None:
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

"""Sparse Sinkhorn Attention: blocks of keys are sorted to the blocks of queries that need them.

Source: "Sparse Sinkhorn Attention" (Tay, Bahri, Yang, Metzler, Juan 2020, arXiv 2002.11296). What stands where is
in `_sorting.py`, the attention itself in `_sorted_blocks.py`; the spec below lists every deviation.

Cost: O(n block d + n^2 / block d) time, O(n d) memory.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn.functional import pad

from saccade.attention.inputs import needed, validate_one_sequence
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, check_sizes, tensor_bytes
from saccade.attention.mechanisms._sorted_blocks import attend_sorted
from saccade.attention.mechanisms._sorted_state import Sorted, nothing, sizes_of
from saccade.attention.mechanisms._sorting import balanced, gumbel, pooled, turned
from saccade.attention.record import Record
from saccade.attention.states import state_dtype, validate_initial, validate_prefill, validate_state, validate_step
from saccade.claims import Claims
from saccade.errors import must_be, unknown
from saccade.shapes import Bool, Float, Tensor

SCORES = ("dot", "linear")


class _Blocks(NamedTuple):
    """Tokens in blocks, zero where hidden and where the last block is filled up."""

    q: Float[Tensor, "b h j t d"]
    k: Float[Tensor, "b g j t d"]
    v: Float[Tensor, "b g j t e"]
    real: Float[Tensor, "b j t"] | None

    @property
    def live(self) -> Bool[Tensor, "#b j"]:
        """Blocks with a real token."""
        if self.real is None:
            return torch.ones(1, self.q.shape[2], dtype=torch.bool, device=self.q.device)
        return self.real.any(2)


class SinkhornLayer(AttentionLayer):
    """Sparse Sinkhorn Attention.

    Attributes:
        spec: the mechanism.
        net: with linear scores the map from a pooled block, queries and keys, to a logit for each block.
    """

    def __init__(self, spec: "SinkhornAttention", heads: int, kv_heads: int, head_dim: int, value_dim: int) -> None:
        super().__init__()
        self.spec = spec
        self.heads, self.kv_heads, self.head_dim, self.value_dim = heads, kv_heads, head_dim, value_dim
        net = None
        if spec.scores == "linear":
            net = nn.Parameter(torch.empty(heads, 2 * head_dim, -(-spec.max_length // spec.block)))
            nn.init.normal_(net, std=1 / math.sqrt(2 * head_dim))
        self.register_parameter("net", net)

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b g n d"],
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
        causal: bool = False,
        q_start: int = 0,
        record: Record | None = None,
    ) -> Float[Tensor, "b h n e"]:
        """One softmax over the sorted and the own block, in fp32 or better.

        Raises:
            ValueError, TypeError: inputs that do not belong together, are longer than `max_length`, or causality with
                SortCut.
        """
        validate_one_sequence(q, k, v, key_mask, q_start)
        self._validate(q.shape[2], causal)
        return self._whole(q, k, v, key_mask, causal, self.training)

    def _validate(self, n: int, causal: bool) -> None:
        if causal and self.spec.sort_cut is not None:
            wanted = "False, as with sort_cut every query sees the first sorted blocks, which are of later tokens, too"
            raise ValueError(must_be("causal", wanted, causal))
        if self.net is not None and n > self.spec.max_length:
            raise ValueError(must_be("length", f"at most max_length={self.spec.max_length}", n))

    def _whole(
        self, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, causal: bool, noise: bool
    ) -> Float[Tensor, "b h n e"]:
        """All queries at once."""
        (b, h, n, _), e = q.shape, v.shape[3]
        if not b * n * e:
            return (q.sum() + k.sum() + v.sum()).expand(b, h, n, e)
        with torch.autocast(q.device.type, enabled=False):
            blocks = self._blocks(q, k, v, key_mask, causal)
            logits = self._logits(blocks, causal)
            if noise and self.spec.gumbel:
                logits = logits + self.spec.gumbel * gumbel(logits)
            order = balanced(logits / self.spec.temperature, _seen(blocks, causal), self.spec.iterations, causal)
            if self.spec.sort_cut is not None:
                order = _first_live(order, blocks, self.spec.sort_cut)
            out = self._attended(blocks, order, causal)
        return out.view(b, h, -1, e)[:, :, :n].to(q.dtype)

    def _blocks(self, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, causal: bool) -> _Blocks:
        """Blocks, at most as long as the sequence; a mask wherever not every position of every block is seen."""
        (b, _, n, _), wide = q.shape, state_dtype(q.dtype)
        size, key_mask = min(self.spec.block, n), needed(key_mask)
        fill = -n % size
        real = None
        if key_mask is not None:
            q, k, v = (x.masked_fill(~key_mask[:, None, :, None], 0) for x in (q, k, v))
            real = key_mask.to(wide)
        elif fill or causal:
            real = q.new_ones(b, n, dtype=wide)
        q, k, v = ((pad(x, (0, 0, 0, fill)) if fill else x).to(wide).unflatten(2, (-1, size)) for x in (q, k, v))
        return _Blocks(q, k, v, None if real is None else pad(real, (0, fill)).unflatten(1, (-1, size)))

    def _logits(self, blocks: _Blocks, causal: bool) -> Float[Tensor, "b h i j"]:
        """How well block j would stand in place i."""
        asking = pooled(blocks.q, blocks.real, up_to_first=causal)
        if self.net is not None:
            asking = torch.cat([asking, self._shared(pooled(blocks.k, blocks.real, up_to_first=causal))], 3)
        return self._asked(asking, blocks.k, blocks.real)

    def _asked(
        self, asking: Float[Tensor, "b h i f"], k: Float[Tensor, "b g j t d"], real: Float[Tensor, "b j t"] | None
    ) -> Float[Tensor, "b h i j"]:
        """What pooled blocks make of each block: the net's logits, or dot products with its pooled keys."""
        if self.net is not None:
            return asking @ self.net[:, :, : k.shape[2]].to(asking.dtype)
        return asking @ self._shared(pooled(k, real)).mT / math.sqrt(self.head_dim)

    def _shared(self, x: Float[Tensor, "b g *rest"]) -> Float[Tensor, "b h *rest"]:
        """Each key head once for each of its query heads."""
        return x if self.heads == self.kv_heads else x.repeat_interleave(self.heads // self.kv_heads, 1)

    def _attended(self, blocks: _Blocks, order: Float[Tensor, "b h s j"], causal: bool) -> Float[Tensor, "m j t e"]:
        """The softmax, over all heads of all examples."""
        mass = real = None
        order = order.flatten(0, 1)
        if blocks.real is not None:
            real = blocks.real.repeat_interleave(self.heads, 0)
            mass = torch.bmm(order, real)
        q, k, v = (x.flatten(0, 1) for x in (blocks.q, self._shared(blocks.k), self._shared(blocks.v)))
        return attend_sorted(q, k, v, order, mass, real, causal, cut=self.spec.sort_cut is not None)

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Sorted:
        """No tokens yet, and nothing sorted."""
        if self.spec.sort_cut is not None:
            return super().initial_state(batch, dtype, device)
        dtype = validate_initial(batch, dtype)
        return nothing((batch, self.heads, self.kv_heads), self._dims, *self._plan, dtype, device)

    @property
    def _dims(self) -> tuple[int, int, int]:
        return self.head_dim, self.value_dim, self.head_dim * (1 if self.net is None else 2)

    @property
    def _plan(self) -> tuple[int, int]:
        return self.spec.block, self.spec.iterations

    def prefill(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b g n d"],
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b h n e"], Sorted]:
        """The causal form without noise, and the state behind it."""
        if self.spec.sort_cut is not None:
            return super().prefill(q, k, v, key_mask)
        validate_prefill(q, k, v, key_mask)
        self._validate(q.shape[2], True)
        state, out = self.initial_state(q.shape[0], q.dtype, q.device), self._whole(q, k, v, key_mask, True, False)
        if not q.shape[2]:
            return out, state
        with torch.autocast(q.device.type, enabled=False):
            state = state.extended(k, v, key_mask, self._total(q, k, key_mask))
            blocks = self._blocks(q, k, v, key_mask, True)
            taken = pad(state.taken, (0, blocks.q.shape[2]))
            order, taken = self._turned(self._logits(blocks, True), _seen(blocks, True), taken)
            return out, state.sorted(order[:, :, -1], taken, self.spec.block)

    def step(
        self,
        q: Float[Tensor, "b h 1 d"],
        k: Float[Tensor, "b g 1 d"],
        v: Float[Tensor, "b g 1 e"],
        state: Sorted,
        key_mask: Bool[Tensor, "b 1"] | None = None,
    ) -> tuple[Float[Tensor, "b h 1 e"], Sorted]:
        """Attention over two blocks, without noise. Where a block begins, earlier ones are sorted to it first."""
        if self.spec.sort_cut is not None:
            return super().step(q, k, v, state, key_mask)
        validate_step(q, k, v, key_mask)
        before = state.length if isinstance(state, Sorted) else 0
        sizes = sizes_of((len(q), self.heads, self.kv_heads), self._dims, *self._plan, before)
        validate_state(state, Sorted, sizes, q)
        self._validate(before + 1, True)
        with torch.autocast(q.device.type, enabled=False):
            state = state.extended(k, v, key_mask, self._total(q, k, key_mask))
            if before % self.spec.block == 0:
                state = self._begun(state)
            hidden = q if key_mask is None else q.masked_fill(~key_mask[:, None, :, None], 0)
            return state.asked(hidden.to(state.keys.dtype), self.spec.block).to(q.dtype), state

    def _total(self, q: Tensor, k: Tensor, key_mask: Tensor | None) -> Float[Tensor, "b h f"]:
        """The sum of queries, and of keys where blocks are pooled with them."""
        summed = [q] if self.net is None else [q, self._shared(k)]
        if key_mask is not None:
            summed = [x.masked_fill(~key_mask[:, None, :, None], 0) for x in summed]
        return torch.cat([x.to(state_dtype(q.dtype)).sum(2) for x in summed], 2)

    def _begun(self, state: Sorted) -> Sorted:
        """Sort the finished blocks to the one whose first token the state has just been given."""
        done, block = state.finished(self.spec.block), self.spec.block
        count = state.key_mask.sum(1)[:, None, None].clamp(min=1)
        real = done.key_mask.to(done.keys.dtype).unflatten(1, (done.length // block, block))
        asking = (state.total * count.rsqrt())[:, :, None]
        logits = self._asked(asking, done.keys.unflatten(2, real.shape[1:]), real)
        seen = pad(real.any(2), (0, 1))[:, None, None]
        order, taken = self._turned(pad(logits, (0, 1)), seen, pad(state.taken, (0, 1)))
        return state.sorted(order[:, :, 0], taken, block)

    def _turned(self, logits: Tensor, seen: Tensor, taken: Tensor) -> tuple[Tensor, Tensor]:
        """Some rows of the causal balancing, without noise, and what is taken behind them."""
        order, taken_now = turned(logits / self.spec.temperature, seen, self.spec.iterations, taken)
        assert taken_now is not None
        return order, taken_now

    def extra_repr(self) -> str:
        """The spec."""
        return repr(self.spec)


def _seen(blocks: _Blocks, causal: bool) -> Bool[Tensor, "#b 1 i j"]:
    """Which blocks may stand where: those with a real token. Causally those before, as far as is known by then."""
    live = blocks.live[:, None]
    if causal:
        return live[:, :, None] & torch.ones_like(live[0]).expand(live.shape[2], -1).tril(-1)
    return live[:, :, None] & live[..., None]


def _first_live(order: Float[Tensor, "b h i j"], blocks: _Blocks, cut: int) -> Float[Tensor, "b h s j"]:
    """The first rows that belong to a block with a real token."""
    if blocks.real is None:
        return order[:, :, :cut]
    first = (~blocks.live).to(torch.uint8).argsort(dim=1, stable=True)[:, :cut]
    return order.gather(2, first[:, None, :, None].expand(-1, order.shape[1], -1, order.shape[3]))


@dataclass(frozen=True, repr=False)
class SinkhornAttention(Mechanism):
    """x."""

    name = "sinkhorn"

    block: int = 128
    iterations: int = 8
    temperature: int | float = 0.75
    gumbel: int | float = 1.0
    sort_cut: int | None = None
    scores: str = "dot"
    max_length: int = 4096

    def __post_init__(self) -> None:
        """Refuse options that make no mechanism, at once."""
        for name in ("block", "iterations", "sort_cut", "max_length"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                if name != "sort_cut" or value is not None:
                    raise ValueError(must_be(name, "a whole number, at least 1", value))
        if isinstance(self.temperature, bool) or not (isinstance(self.temperature, int | float) and 0 < self.temperature < math.inf):
            raise ValueError(must_be("temperature", "a number above 0", self.temperature))
        if isinstance(self.gumbel, bool) or not (isinstance(self.gumbel, int | float) and 0 <= self.gumbel < math.inf):
            raise ValueError(must_be("gumbel", "a number, at least 0", self.gumbel))
        if self.scores not in SCORES:
            raise ValueError(unknown("scores", self.scores, SCORES))

    @property
    def claims(self) -> Claims:
        """Causal unless SortCut; linear scores end at `max_length`."""
        causal = self.sort_cut is None
        return Claims(
            causal=causal,
            any_length=self.scores == "dot",
            any_mask=True,
            normalised=True,
            streaming=causal,
            state_size="O(n)" if causal else "",
        )

    def build(
        self,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        layer: int = 0,
    ) -> SinkhornLayer:
        """A layer; only linear scores have parameters."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        return SinkhornLayer(self, heads, kv_heads, head_dim, value_dim)

    def cost(
        self,
        n_q: int,
        n_k: int,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        causal: bool = False,
    ) -> Cost:
        """x."""
        return Cost(0, 0, 0)

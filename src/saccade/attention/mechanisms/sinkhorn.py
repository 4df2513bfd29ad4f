"""Sparse Sinkhorn Attention: blocks of keys are sorted to the blocks of queries that need them.

Source: "Sparse Sinkhorn Attention" (Tay et al. 2020); the spec below lists every deviation. What stands where is in
`_sinkhorn/sorting.py`, the softmax in `_sinkhorn/sorted_blocks.py`, decoding in `_sinkhorn/sorted_state.py`.

Cost: O(n block d + n^2 / block d) time, O(n d) memory.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import pad

from saccade.attention.inputs import validate_built, validate_one_sequence
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, check_sizes, tensor_bytes
from saccade.attention.mechanisms._grouped_heads import for_queries
from saccade.attention.mechanisms._sinkhorn.sorted_blocks import attend_sorted
from saccade.attention.mechanisms._sinkhorn.sorted_state import Sorted, nothing, sizes_of
from saccade.attention.mechanisms._sinkhorn.sorting import (
    Blocks,
    balanced,
    blocks_of,
    first_live,
    gumbel,
    pooled,
    seen,
    turned,
)
from saccade.attention.record import Record
from saccade.attention.states import state_dtype, validate_initial, validate_prefill, validate_state, validate_step
from saccade.claims import Claims
from saccade.errors import must_be, unknown, whole_number
from saccade.shapes import Bool, Float, Tensor

SCORES = ("dot", "linear")


class SinkhornLayer(AttentionLayer):
    """Sparse Sinkhorn Attention.

    Attributes:
        spec: the mechanism.
        net: with linear scores the map from a pooled block, queries and keys, to a logit for each block.
    """

    net: nn.Parameter | None

    def __init__(self, spec: "SinkhornAttention", heads: int, kv_heads: int, head_dim: int, value_dim: int) -> None:
        super().__init__()
        self.spec = spec
        self.heads, self.kv_heads = heads, kv_heads
        self.net, self._dims = None, (head_dim, value_dim, head_dim)
        if spec.scores == "linear":
            places = -(-spec.max_length // spec.block)
            self.net = nn.Parameter(torch.randn(heads, 2 * head_dim, places) / math.sqrt(2 * head_dim))
            self._dims = head_dim, value_dim, 2 * head_dim

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
            ValueError, TypeError: inputs that do not belong together, too long ones, or causality with SortCut.
        """
        validate_one_sequence(q, k, v, key_mask, q_start)
        self._validate(q.shape[2], causal)
        if self.net is not None:
            validate_built("q", q, self.heads, self._dims[0])
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
            blocks = blocks_of(q, k, v, key_mask, self.spec.block, causal)
            logits = self._logits(blocks, causal)
            if noise and self.spec.gumbel:
                logits = logits + self.spec.gumbel * gumbel(logits)
            order = balanced(logits / self.spec.temperature, seen(blocks, causal), self.spec.iterations, causal)
            if self.spec.sort_cut is not None:
                order = first_live(order, blocks, self.spec.sort_cut)
            out = self._attended(blocks, order, causal)
        return out.view(b, h, -1, e)[:, :, :n].to(q.dtype)

    def _logits(self, blocks: Blocks, causal: bool) -> Float[Tensor, "b h i j"]:
        """How well block j would stand in place i."""
        asking = pooled(blocks.q, blocks.real, up_to_first=causal)
        if self.net is not None:
            keys = for_queries(pooled(blocks.k, blocks.real, up_to_first=causal), asking.shape[1])
            asking = torch.cat([asking, keys], 3)
        return self._asked(asking, blocks.k, blocks.real)

    def _asked(
        self, asking: Float[Tensor, "b h i f"], k: Float[Tensor, "b g j t d"], real: Float[Tensor, "b j t"] | None
    ) -> Float[Tensor, "b h i j"]:
        """What pooled blocks make of each block: the net's logits, or dot products with its pooled keys."""
        if self.net is not None:
            return asking @ self.net[:, :, : k.shape[2]].to(asking.dtype)
        return asking @ for_queries(pooled(k, real), asking.shape[1]).mT / math.sqrt(asking.shape[3])

    def _attended(self, blocks: Blocks, order: Float[Tensor, "b h s j"], causal: bool) -> Float[Tensor, "m j t e"]:
        """The softmax, over all heads of all examples."""
        heads, mass, real = order.shape[1], None, None
        order = order.flatten(0, 1)
        if blocks.real is not None:
            real = blocks.real.repeat_interleave(heads, 0)
            mass = torch.bmm(order, real)
        q, k, v = (for_queries(x, heads).flatten(0, 1) for x in blocks[:3])
        return attend_sorted(q, k, v, order, mass, real, causal, cut=self.spec.sort_cut is not None)

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Sorted:
        """No tokens yet, and nothing sorted."""
        if self.spec.sort_cut is not None:
            return super().initial_state(batch, dtype, device)
        return self._nothing(batch, validate_initial(batch, dtype), device)

    def _nothing(self, batch: int, dtype: torch.dtype, device: torch.device | str | None) -> Sorted:
        block, turns = self.spec.block, self.spec.iterations
        return nothing((batch, self.heads, self.kv_heads), self._dims, block, turns, dtype, device)

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
        state, out = self._nothing(len(q), state_dtype(q.dtype), q.device), self._whole(q, k, v, key_mask, True, False)
        if not q.shape[2]:
            return out, state
        with torch.autocast(q.device.type, enabled=False):
            state = state.extended(k, v, key_mask, self._total(q, k, key_mask))
            blocks = blocks_of(q, k, v, key_mask, self.spec.block, True)
            logits, taken = self._logits(blocks, True), pad(state.taken, (0, blocks.q.shape[2]))
            return out, state.sorted(*self._turned(logits, seen(blocks, True), taken), self.spec.block)

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
        shape = len(q), self.heads, self.kv_heads
        sizes = sizes_of(shape, self._dims, self.spec.block, self.spec.iterations, before)
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
        summed = [q] if self.net is None else [q, for_queries(k, self.heads)]
        if key_mask is not None:
            summed = [x.masked_fill(~key_mask[:, None, :, None], 0) for x in summed]
        return torch.cat([x.to(state_dtype(q.dtype)).sum(2) for x in summed], 2)

    def _begun(self, state: Sorted) -> Sorted:
        """Sort the finished blocks to the one whose first token the state has just been given."""
        done, block = state.finished(self.spec.block), self.spec.block
        count = state.key_mask.sum(1)[:, None, None].clamp(min=1)
        real = done.key_mask.to(done.keys.dtype).unflatten(1, (done.length // block, block))
        asking = (state.total * count.to(state.total.dtype).rsqrt())[:, :, None]
        logits = self._asked(asking, done.keys.unflatten(2, real.shape[1:]), real)
        earlier = pad(real.any(2), (0, 1))[:, None, None]
        return state.sorted(*self._turned(pad(logits, (0, 1)), earlier, pad(state.taken, (0, 1))), block)

    def _turned(self, logits: Tensor, seen: Tensor, taken: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Rows of the causal balancing without noise, and what is taken behind the last."""
        return turned(logits / self.spec.temperature, seen, self.spec.iterations, taken)

    def extra_repr(self) -> str:
        """The spec."""
        return repr(self.spec)


@dataclass(frozen=True, repr=False)
class SinkhornAttention(Mechanism):
    """Sorts blocks of keys softly to the blocks of queries that need them; a query sees that block and its own.

    Formula:
        With blocks of B positions, p_i the sum of block i over the root of its number of tokens:
        logits L_ij = p(q)_i . p(k)_j / sqrt(d), or (W [p(q)_i ; p(k)_i])_j with W learned for each head (`"linear"`);
        R = rows(columns(rows(... exp((L + Gumbel noise) / temperature)))), rows and columns normalised in turn;
        K'_i = sum_j R_ij K_j and V'_i likewise, block by block;
        y = softmax(q [K'_i ; K_i]^T / sqrt(d)) [V'_i ; V_i] for each query of block i: one softmax over both.
        SortCut: softmax over [K'_1 ; ... ; K'_c] for every query, without its own block.
        Causal: p(q)_i sums all queries up to the first token of block i; R_ij = 0 for j >= i, and a column is divided
        by what the rows up to i have taken of it. K_i is seen up to the query. Block 0 has nothing but itself.

    Cost:
        O(n B (d + e)) for the softmax and O(n^2 / B (d + e)) for the sorting: least at B = sqrt(n / 2). Memory O(n d).
        SortCut: O(n c B (d + e)). A decoding state is O(n): all keys and values, and two blocks.

    Use it:
        Encoders over long inputs in which a block needs some other block, wherever it stands: sorting, matching,
        documents. Train it from scratch: what to fetch is learned through the noise.

    Leave it:
        Where one query of a block needs another place than its neighbours: a whole block shares one order. Below about
        four blocks dense attention costs the same. In the causal form no later row may matter, so the newest finished
        block, of which nobody has taken yet, always gets a large share: where 32 blocks score alike, 28 % with one
        iteration and 82 % with eight. With many it is close to a window of two blocks; with few it sorts more.

    Source:
        "Sparse Sinkhorn Attention", Tay, Bahri, Yang, Metzler and Juan 2020. Where we differ or had to choose:
        a pooled block is the paper's sum, divided by the root of how many tokens it is of, so that logits are as large
        as scores of tokens. Dot products need no parameters; the paper's net reads the layer's input, ours the queries
        and keys made from it, without a bias, which the columns would cancel. After the paper's balancing (rows, then
        columns) rows are normalised once more. Causally a column counts only the rows so far. Where tokens are hidden,
        a position of a sorted block is the mean over the real ones, with the log of their share added to its logit.

    Attributes:
        block: positions in a block; at least n makes it dense attention.
        iterations: times that columns and rows are normalised; 5 to 20 in the paper.
        temperature: divides the logits; low ones move whole blocks, high ones mix them.
        gumbel: factor of the noise on the logits in training; 0 for none. Evaluation and decoding draw none.
        sort_cut: SortCut, for encoders only: every query sees so many sorted blocks, the first ones.
        scores: `"dot"`, the dot product of block sums, or `"linear"`, the paper's net.
        max_length: longest input of the net.
    """

    name = "sinkhorn"
    family = "sorting"

    block: int = 128
    iterations: int = 8
    temperature: int | float = 0.75
    gumbel: int | float = 1.0
    sort_cut: int | None = None
    scores: Literal["dot", "linear"] = "dot"
    max_length: int = 4096

    def __post_init__(self) -> None:
        """Refuse options that make no mechanism, at once."""
        for name in ("block", "iterations", "max_length"):
            whole_number(name, getattr(self, name))
        if self.sort_cut is not None:
            whole_number("sort_cut", self.sort_cut)
        if not _is_number(self.temperature) or self.temperature <= 0:
            raise ValueError(must_be("temperature", "a number above 0", self.temperature))
        if not _is_number(self.gumbel) or self.gumbel < 0:
            raise ValueError(must_be("gumbel", "a number, at least 0", self.gumbel))
        if self.scores not in SCORES:
            raise ValueError(unknown("scores", self.scores, SCORES))

    @property
    def claims(self) -> Claims:
        """Causal but for SortCut; with the net, no longer than `max_length`."""
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
        """A layer; with the net, its weights are drawn from torch's global generator."""
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
        """Scoring and sorting blocks, and the softmax over them; queries and keys are one sequence of `n_q`."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        t = max(1, min(self.block, n_q))
        j, dims, f = -(-n_q // t), head_dim + value_dim, head_dim * (1 if self.scores == "dot" else 2)
        n, s, masked = j * t, min(self.sort_cut or j, j), causal or n_q % t > 0
        sorting = j * j * f + s * n * dims + (s * n if masked else 0)
        columns, pairs = (2 * t if self.sort_cut is None else s * t), self._pairs(n_q, t, causal)
        chosen, mass = (j if masked and self.sort_cut else 0), (s * t + n if masked else 0)
        kept = n * (head_dim + dims + 1) + j * (j + s + 2 * head_dim + chosen) + mass
        return Cost(
            flops=2 * heads * (sorting + pairs * dims),
            pairs=heads * pairs,
            bytes=tensor_bytes(n_q, n_k, heads, kv_heads, head_dim, value_dim),
            wasted=2 * heads * (n * columns - pairs) * dims,
            kept=4 * heads * kept + j * j + 8 * (j + chosen),
        )

    def _pairs(self, n: int, t: int, causal: bool) -> int:
        """Queries with keys of sorted blocks, and with those of their own: all of its block, or those before it."""
        whole, rest = divmod(n, t)
        if self.sort_cut is not None:
            return n * min(self.sort_cut, -(-n // t)) * t
        if causal:
            return max(0, n - t) * t + (whole * t * (t + 1) + rest * (rest + 1)) // 2
        return n * t + whole * t * t + rest * rest


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

"""Routing attention: queries and keys are sorted into clusters by learned centroids, and meet within them.

Source: "Efficient Content-Based Sparse Attention with Routing Transformers" (Roy, Saffar, Vaswani & Grangier 2021,
TACL; arXiv 2003.05997 of 2020), Algorithm 1. How it is computed is in `_routing`.

Cost: O(n clusters d + n^2 (d + e) / clusters) time, so O(n^1.5 d) with sqrt(n) clusters; O(n (d + e)) memory.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from saccade.attention.inputs import live_lengths, needed, validate_built, validate_one_sequence
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, check_sizes, tensor_bytes
from saccade.attention.mechanisms._grouped_heads import for_queries
from saccade.attention.mechanisms._routing.clusters import even_pairs, nearest, width
from saccade.attention.mechanisms._routing.compiled import compiled
from saccade.attention.mechanisms._routing.gathered import Routed, Routes, routed
from saccade.attention.mechanisms._routing.normalised import normalised
from saccade.attention.mechanisms._routing.routed_keys import RoutedKeys, attended
from saccade.attention.record import Record, is_computed_again
from saccade.attention.seeds import generator_of
from saccade.attention.states import state_dtype, validate_initial, validate_state
from saccade.claims import Claims
from saccade.errors import must_be, unknown, whole_number
from saccade.shapes import Bool, Float, Int

SCORES = ("normalised", "raw")
"""What scores may be made of."""


def first_centroids(seed: int, layer: int, heads: int, clusters: int, dim: int) -> Float[Tensor, "h c d"]:
    """Random directions, as long as normalised queries, drawn for each layer and head anew."""
    drawn = []
    for head in range(heads):
        generator = generator_of(seed, layer, head)
        drawn.append(torch.randn(clusters, dim, generator=generator, device="cpu", dtype=torch.float64))
    return normalised(torch.stack(drawn)).to(torch.get_default_device(), torch.get_default_dtype())


class RoutingLayer(AttentionLayer):
    """Attention within clusters; no parameters, but centroids that `after_step` moves.

    Attributes:
        spec: the options.
        centroids: of each head, `[h c d]`; a buffer, kept in checkpoints.
    """

    centroids: Float[Tensor, "h c d"]

    def __init__(
        self, spec: "RoutingAttention", heads: int, head_dim: int, kv_heads: int, value_dim: int, layer: int
    ) -> None:
        super().__init__()
        self.spec = spec
        self.heads, self.head_dim, self.value_dim = heads, head_dim, value_dim
        self.kv_heads, self.key_heads = kv_heads, heads if spec.shared_qk else kv_heads
        self.register_buffer("centroids", first_centroids(spec.seed, layer, heads, spec.clusters, head_dim))
        self._notes: Float[Tensor, "h c d1"] | None = None

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Tensor | None,
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
        causal: bool = False,
        q_start: int = 0,
        record: Record | None = None,
    ) -> Float[Tensor, "b h n e"]:
        """The mean of what the clusters of a token give it; causally, what its nearest one does."""
        validate_one_sequence(q, k, v, key_mask, q_start, self.spec.shared_qk)
        validate_built("q", q, self.heads, self.head_dim)
        key_mask = needed(key_mask)
        with torch.autocast(q.device.type, enabled=False):
            q, k, v = self._hidden(q, k, v, key_mask)
            found = self._routed(q, k, v, key_mask, causal, record is not None and "counts" in record)
            if record is not None and "losses" in record:
                record.add("losses", self.spec.commitment * self._commitment(q, k, key_mask))
            if record is not None and found.counts is not None:
                record.add("counts", found.counts.unflatten(0, q.shape[:2]))
        return found.out.unflatten(0, q.shape[:2])

    def _hidden(
        self, q: Tensor, k: Tensor | None, v: Tensor, key_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Inputs that are zero where hidden, each with as many heads as the queries."""
        hidden = None if key_mask is None else ~key_mask[:, None, :, None]
        q, v = (x if hidden is None else x.masked_fill(hidden, 0) for x in (q, for_queries(v, self.heads)))
        if k is None or self.spec.shared_qk:
            return q, None, v
        k = for_queries(k, self.heads)
        return q, k if hidden is None else k.masked_fill(hidden, 0), v

    def _routed(
        self, q: Tensor, k: Tensor | None, v: Tensor, key_mask: Tensor | None, causal: bool, counted: bool
    ) -> Routed:
        """The output; in training also notes for `after_step`."""
        training, (b, _, n, _) = self.training and torch.is_grad_enabled(), q.shape
        raw, noted, window = self.spec.scores == "raw", training or counted, self.spec.window
        inputs = q.flatten(0, 1), None if k is None else k.flatten(0, 1), v.flatten(0, 1), self.centroids, key_mask
        if torch.compiler.is_compiling():
            found = compiled(*inputs, causal, window, raw, noted)
        else:
            widths = tuple(self.spec.width(live) for live in live_lengths(key_mask) or (n,) * b)
            found = routed(*inputs, Routes(self.spec.clusters, causal, window, widths, raw, noted))
        if training and found.sums is not None and found.counts is not None and not is_computed_again():
            notes = torch.cat([found.sums, found.counts[..., None]], 2).unflatten(0, q.shape[:2]).sum(0)
            self._notes = (self._no_notes() if self._notes is None else self._notes).add_(notes)
        return found

    def _commitment(self, q: Tensor, k: Tensor | None, key_mask: Tensor | None) -> Float[Tensor, ""]:
        """Mean squared distance of normalised queries and keys to their nearest centroids, which do not feel it."""
        means = []
        for x in (q,) if k is None else (q, k):
            unit = normalised(x.to(state_dtype(x.dtype)))
            index = self._nearest(unit.detach(), None)[..., None].expand_as(unit)
            centroid = self.centroids.to(unit.dtype).expand(len(unit), -1, -1, -1).gather(2, index)
            distance = (unit - centroid).square().sum(-1)
            real = torch.ones_like(distance) if key_mask is None else key_mask[:, None].expand_as(distance)
            means.append((distance * real).sum() / real.sum().clamp(min=1))
        return torch.stack(means).mean()

    def _nearest(self, unit: Float[Tensor, "b h n d"], key_mask: Bool[Tensor, "b n"] | None) -> Int[Tensor, "b h n"]:
        """The nearest centroid of normalised queries or keys."""
        products = (unit @ self.centroids.to(unit.dtype).mT).flatten(0, 1)
        real = None if key_mask is None else key_mask.repeat_interleave(self.heads, 0)
        return nearest(products, real).unflatten(0, unit.shape[:2])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RoutingLayer":
        """As every module, but centroids stay in fp32 at least: in half precision small moves would be rounded away."""
        wide = self.centroids
        super()._apply(fn, recurse)
        if self.centroids.dtype != state_dtype(self.centroids.dtype):
            self.centroids = wide.to(self.centroids.device, state_dtype(self.centroids.dtype))
        return self

    @torch.no_grad()
    def after_step(self) -> None:
        """Move each centroid towards the mean of the queries and keys that were nearest to it, if there were any.

        What every data-parallel worker has seen is added up first.
        """
        notes, self._notes = self._notes, None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            notes = self._no_notes() if notes is None else notes
            torch.distributed.all_reduce(notes)
        if notes is not None:
            sums, count = notes.split([self.head_dim, 1], 2)
            moved = torch.lerp(self.centroids.to(sums.dtype), sums / count.clamp(min=1), 1 - self.spec.decay)
            seen = (count > 0) & moved.isfinite().all(2, keepdim=True)
            self.centroids.copy_(torch.where(seen, moved, self.centroids))

    def _no_notes(self) -> Float[Tensor, "h c d1"]:
        """Sums over nothing, with the counts behind them."""
        shape, dtype = (self.heads, self.spec.clusters, self.head_dim + 1), state_dtype(self.centroids.dtype)
        return torch.zeros(shape, dtype=dtype, device=self.centroids.device)

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> RoutedKeys:
        """No tokens yet."""
        like = torch.zeros(batch, 0, dtype=validate_initial(batch, dtype), device=device)
        keys, values = (
            like.new_zeros(batch, heads, 0, dim)
            for heads, dim in ((self.key_heads, self.head_dim), (self.kv_heads, self.value_dim))
        )
        clusters = like.new_zeros(batch, self.heads, 0, dtype=torch.int32)
        return RoutedKeys(keys, values, clusters, like.bool())

    def prefill(
        self,
        q: Float[Tensor, "b h n d"],
        k: Tensor | None,
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b h n e"], RoutedKeys]:
        """The causal form, and all tokens."""
        out = self(q, k, v, key_mask, causal=True)
        with torch.autocast(q.device.type, enabled=False):
            return out, RoutedKeys(*(leaf.clone() for leaf in self._tokens(q, k, v, key_mask)))

    def step(
        self,
        q: Float[Tensor, "b h 1 d"],
        k: Tensor | None,
        v: Float[Tensor, "b g 1 e"],
        state: RoutedKeys,
        key_mask: Bool[Tensor, "b 1"] | None = None,
    ) -> tuple[Float[Tensor, "b h 1 e"], RoutedKeys]:
        """Dense attention over the token itself and the tokens of its cluster."""
        validate_one_sequence(q, k, v, key_mask, 0, self.spec.shared_qk)
        if q.shape[2] != 1:
            raise ValueError(must_be("q of a step", "one token long", q.shape[2]))
        b, before = q.shape[0], state.key_mask.shape[1] if isinstance(state, RoutedKeys) else 0
        sizes = (self.key_heads, before, self.head_dim), (self.kv_heads, before, self.value_dim), (self.heads, before)
        validate_state(state, RoutedKeys, (*((b, *size) for size in sizes), (b, before)), q)
        with torch.autocast(q.device.type, enabled=False):
            new = self._tokens(q, k, v, key_mask)
            state = RoutedKeys(*(torch.cat(pair, -1 - (pair[0].ndim == 4)) for pair in zip(state, new, strict=True)))
            q = self._hidden(q, k, v, key_mask)[0].to(state.keys.dtype)
            unit = normalised(q)
            label = self._nearest(unit, key_mask)
            return attended(q if self.spec.scores == "raw" else unit, label, state, self.spec.window).to(v.dtype), state

    def _tokens(self, q: Tensor, k: Tensor | None, v: Tensor, key_mask: Tensor | None) -> RoutedKeys:
        """Tokens as a state holds them."""
        keys, wide = q if self.spec.shared_qk or k is None else k, state_dtype(q.dtype)
        mask = torch.ones(len(q), q.shape[2], dtype=torch.bool, device=q.device) if key_mask is None else key_mask
        keys, values = (x.to(wide).masked_fill(~mask[:, None, :, None], 0) for x in (keys, v))
        unit = normalised(keys)
        clusters = self._nearest(for_queries(unit, self.heads), mask).int()
        return RoutedKeys(unit if self.spec.scores == "normalised" else keys, values, clusters, mask.clone())

    def extra_repr(self) -> str:
        """The options."""
        return repr(self.spec)


@dataclass(frozen=True, repr=False)
class RoutingAttention(Mechanism):
    """Queries and keys are sorted into clusters by learned centroids and meet within them.

    Formula:
        q^ = layernorm(q), k^ = layernorm(k), without scale and bias. Each of the `clusters` centroids mu takes the w
        queries with the largest q^ . mu and the w keys with the largest k^ . mu; w = ceil(live length / clusters).
        Within it: softmax(q^ k^T / sqrt(d)) v. A token gets the mean of what its clusters give it, zeros where it
        is in none. Causally every token belongs to its nearest centroid alone, by its own product with it: a query
        sees itself, and the earlier keys that belong where it does.

    Cost:
        O(n clusters d) time to choose and O(n w (d + e)) for the softmax: least where `clusters` is about sqrt(n).
        O(n (d + e)) memory. Causally time follows the sizes that clusters happen to have. State: all tokens, O(n).

    Use it:
        Where what belongs together lies far apart and is told by content: long text, sets, music. Besides local heads,
        as in the paper, half and half: `mixed([("local", 4), ("routing", 4)])`.

    Leave it:
        Below about 1,000 tokens; where every token must be heard, as without `causal` some are in no cluster; where
        training cannot call `after_step`: centroids then stay the random directions they begin as.

    Source:
        Roy, Saffar, Vaswani & Grangier 2021 (TACL; arXiv 2003.05997 of 2020), Algorithm 1. Deviations: its last line
        moves centroids by half the *sum* of the queries and keys that are nearest to them, here by their mean, as a
        sum grows with batch and length; one without any stays. w follows the live length, not the padded one. Its
        causal form masks clusters that were chosen by looking at the whole sequence, which lets the future choose who
        is seen: the one here does not. Scores are divided by sqrt(d), which Algorithm 1 leaves out.

    Attributes:
        clusters: centroids of each head.
        window: queries and keys that a centroid takes; the live length divided by `clusters` if not given. Causally,
            the latest keys that a query sees, itself among them; all if not given.
        decay: what stays of a centroid in one step.
        commitment: factor of the loss that draws queries and keys to their centroids, given to `record`.
        shared_qk: whether queries are keys as well, the paper's causal setting: k is not read.
        scores: "normalised", or "raw" where only clusters are chosen by normalised queries and keys, as in some ports.
        seed: what the first centroids are drawn from, with the numbers of layer and head.
    """

    name = "routing"
    family = "clustering"
    clusters: int = 32
    window: int | None = None
    decay: int | float = 0.999
    commitment: int | float = 1e-4
    shared_qk: bool = False
    scores: Literal["normalised", "raw"] = "normalised"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse options that route nowhere."""
        whole = [("clusters", self.clusters, 1), ("seed", self.seed, 0)]
        whole += [] if self.window is None else [("window", self.window, 1)]
        for name, value, least in whole:
            whole_number(name, value, least)
        for name, value, most in (("decay", self.decay, 1), ("commitment", self.commitment, math.inf)):
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or not 0 <= value <= most:
                raise ValueError(must_be(name, "a number from 0 to 1" if most == 1 else "a number, at least 0", value))
        if not isinstance(self.shared_qk, bool):
            raise ValueError(must_be("shared_qk", "True or False", self.shared_qk))
        if self.scores not in SCORES:
            raise ValueError(unknown("scores", self.scores, SCORES))

    @property
    def inputs(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride] - here an option decides
        """What a layer reads."""
        return ("q", "v") if self.shared_qk else ("q", "k", "v")

    @property
    def claims(self) -> Claims:
        """Any length and mask, and a causal form that streams; queries and keys are one sequence."""
        return Claims(
            causal=True,
            any_length=True,
            any_mask=True,
            streaming=True,
            shared_qk=self.shared_qk,
            state_size="O(n)",
        )

    def width(self, live: int) -> int:
        """Queries and keys that a centroid takes of so many tokens."""
        return width(live, self.clusters, self.window)

    def build(
        self,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        layer: int = 0,
    ) -> RoutingLayer:
        """A layer with centroids of its own."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        return RoutingLayer(self, heads, head_dim, kv_heads, value_dim, layer)

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
        """Products with centroids, and the pairs within clusters; causally of clusters that are equally large."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        per_pair = 2 * heads * (head_dim + value_dim)
        width_q, width_k = self.width(n_q), self.width(n_k)
        pairs = visited = self.clusters * width_q * width_k
        if causal:
            pairs, visited = even_pairs(n_q, self.clusters, self.window)
        read, listed = (n_q, width_q) if self.shared_qk else (n_q + n_k, width_q + width_k)
        kept = read * head_dim + n_k * value_dim + (read + n_q if causal else self.clusters * (listed + width_q))
        moved = tensor_bytes(n_q, n_k, heads, kv_heads, head_dim, value_dim)
        return Cost(
            flops=2 * heads * self.clusters * read * head_dim + per_pair * pairs,
            pairs=heads * pairs,
            bytes=moved + 4 * heads * self.clusters * head_dim,
            wasted=per_pair * (visited - pairs),
            kept=4 * heads * kept,
        )

"""Performer (FAVOR+): softmax attention estimated by positive random features, so that keys are summed once.

Source: "Rethinking Attention with Performers" (Choromanski et al. 2020, arXiv 2009.14794), algorithm 1 and section 2.
How it is computed is in `_performer`.

Cost: O(n f (d + e)) time, O(n (d + e)) memory; a state is f * (e + 1) + 1 numbers for each key head. `f` features.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from saccade.attention.inputs import hide, needed, validate, validate_built
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, check_sizes, kept_bytes, tensor_bytes
from saccade.attention.mechanisms._feature_map import CHUNK, ROWS, missing_rows
from saccade.attention.mechanisms._performer.causal_sums import causal_sums
from saccade.attention.mechanisms._performer.directions import drawn_directions
from saccade.attention.mechanisms._performer.exported import exported
from saccade.attention.mechanisms._performer.shifted_sums import ShiftedSums, asked_sums, joined, no_sums, shifted_sums
from saccade.attention.record import Record
from saccade.attention.states import state_dtype, validate_initial, validate_prefill, validate_state, validate_step
from saccade.claims import Claims
from saccade.errors import unknown, whole_number
from saccade.shapes import Bool, Float, Int

NORMS = ("chi", "sqrt_d")
"""How long directions may be."""


class PerformerLayer(AttentionLayer):
    """Attention by positive features; no parameters, but directions that `after_step` draws anew.

    Attributes:
        spec: the options.
        directions: of each key head; a buffer, kept in checkpoints.
        steps: optimiser steps so far; a buffer, too.
    """

    directions: Float[Tensor, "g f d"]
    steps: Int[Tensor, ""]

    def __init__(
        self, spec: "PerformerAttention", heads: int, head_dim: int, kv_heads: int, value_dim: int, layer: int
    ) -> None:
        super().__init__()
        self.spec, self.layer = spec, layer
        self.heads, self.head_dim, self.kv_heads, self.value_dim = heads, head_dim, kv_heads, value_dim
        self.register_buffer("directions", self._drawn(0).to(torch.get_default_device(), torch.get_default_dtype()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def _drawn(self, draw: int) -> Float[Tensor, "g f d"]:
        """Directions of a number, the same on every worker."""
        key = self.spec.seed, self.layer, draw
        return drawn_directions(key, self.kv_heads, self.spec.features, self.head_dim, self.spec.norms)

    def after_step(self) -> None:
        """Count the step, and draw new directions after every `redraw` of them; nothing in evaluation."""
        if not self.training or not self.spec.redraw:
            return
        steps = int(self.steps.add_(1))
        if steps % self.spec.redraw == 0:
            self.directions.copy_(self._drawn(steps // self.spec.redraw))

    def forward(
        self,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b g k d"],
        v: Float[Tensor, "b g k e"],
        key_mask: Bool[Tensor, "b k"] | None = None,
        causal: bool = False,
        q_start: int = 0,
        record: Record | None = None,
    ) -> Float[Tensor, "b h q e"]:
        """Weighted means with weights phi(q) . phi(k), in fp32 or better."""
        validate(q, k, v, key_mask, q_start)
        self._validate_built(q, k, v)
        key_mask, wide = needed(key_mask), state_dtype(q.dtype)
        with torch.autocast(q.device.type, enabled=False):
            if torch.compiler.is_exporting():
                k, v = hide(k.to(wide), v.to(wide), key_mask)
                return exported(q.to(wide), k, v, key_mask, self.directions.to(wide), causal, q_start).to(q.dtype)
            if causal and q.numel():  # no queries see the same in both forms
                return self._causal(q, k, v, key_mask, q_start).to(q.dtype)
            return asked_sums(q.to(wide), self._sums(k, v, key_mask), self.directions.to(wide)).to(q.dtype)

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> ShiftedSums:
        """Sums over nothing."""
        like = torch.empty(0, dtype=validate_initial(batch, dtype), device=device)
        return no_sums(batch, self.kv_heads, self.spec.features, self.value_dim, like)

    def prefill(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b g n d"],
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b h n e"], ShiftedSums]:
        """The causal form, and the sums over all tokens."""
        validate_prefill(q, k, v, key_mask)
        out = self(q, k, v, key_mask, causal=True)
        with torch.autocast(q.device.type, enabled=False):
            return out, self._sums(k, v, key_mask)

    def step(
        self,
        q: Float[Tensor, "b h 1 d"],
        k: Float[Tensor, "b g 1 d"],
        v: Float[Tensor, "b g 1 e"],
        state: ShiftedSums,
        key_mask: Bool[Tensor, "b 1"] | None = None,
    ) -> tuple[Float[Tensor, "b h 1 e"], ShiftedSums]:
        """Add the token to the sums and ask them."""
        validate_step(q, k, v, key_mask)
        self._validate_built(q, k, v)
        shape = q.shape[0], self.kv_heads, self.spec.features
        validate_state(state, ShiftedSums, ((*shape, self.value_dim), (*shape, 1), (*shape[:2], 1, 1)), q)
        with torch.autocast(q.device.type, enabled=False):
            state = joined(state, self._sums(k, v, key_mask))
            q_wide = q.to(state.s.dtype)
            return asked_sums(q_wide, state, self.directions.to(q_wide)).to(q.dtype), state

    def _validate_built(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        for name, tensor, heads, dim in (
            ("q", q, self.heads, self.head_dim),
            ("k", k, self.kv_heads, self.head_dim),
            ("v", v, self.kv_heads, self.value_dim),
        ):
            validate_built(name, tensor, heads, dim)

    def _sums(
        self, k: Float[Tensor, "b g k d"], v: Float[Tensor, "b g k e"], key_mask: Bool[Tensor, "b k"] | None
    ) -> ShiftedSums:
        """The sums over some tokens, in fp32 or better."""
        wide = state_dtype(k.dtype)
        k, v = hide(k.to(wide), v.to(wide), key_mask)
        return shifted_sums(k, v, key_mask, self.directions.to(wide))

    def _causal(
        self,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b g k d"],
        v: Float[Tensor, "b g k e"],
        key_mask: Bool[Tensor, "b k"] | None,
        q_start: int,
    ) -> Float[Tensor, "b h q e"]:
        """Queries with the keys up to their own positions. Keys before `q_start` enter as sums."""
        n, wide = q.shape[2], state_dtype(q.dtype)
        end = q_start + n + missing_rows(n)
        if key_mask is None and k.shape[2] < q_start + n:  # queries behind the last key see all keys
            key_mask = k.new_ones(k.shape[0], k.shape[2], dtype=torch.bool)
        k, v = hide(k.to(wide), v.to(wide), key_mask)
        before = None if key_mask is None else key_mask[:, :q_start]
        earlier = self._sums(k[:, :, :q_start], v[:, :, :q_start], before) if q_start else None
        q, k, v = _span(q.to(wide), 2, 0, end - q_start), _span(k, 2, q_start, end), _span(v, 2, q_start, end)
        key_mask = None if key_mask is None else _span(key_mask, 1, q_start, end)
        return causal_sums(q, k, v, key_mask, earlier, self.directions.to(wide))[:, :, :n]

    def extra_repr(self) -> str:
        """The options."""
        return repr(self.spec)


def _span(x: Tensor, axis: int, start: int, end: int) -> Tensor:
    """Positions from `start` to `end`; those behind the last one are zero, or hidden."""
    found = x.narrow(axis, min(start, x.shape[axis]), max(0, min(end, x.shape[axis]) - start))
    missing = end - start - found.shape[axis]
    return pad(found, (0, 0) * (x.ndim - 1 - axis) + (0, missing)) if missing else found


@dataclass(frozen=True, repr=False)
class PerformerAttention(Mechanism):
    """An estimate of softmax attention by positive random features, so that keys and values are summed once.

    Formula:
        out_i = φ(q_i) S / (φ(q_i) · z),   S = Σ_j φ(k_j) v_jᵀ,   z = Σ_j φ(k_j)
        φ(x)_r = exp(w_r · x' − |x'|² / 2) / √features,   x' = x / d^¼
        so that φ(q) · φ(k) is exp(q · k / √d) on average over the directions w, which are orthogonal in blocks of d.
        j runs over all keys; causally up to i, so that S and z become a recurrence.

    Cost:
        O(n f (d + e)) time and O(n (d + e)) memory, for f features, keys of d and values of e numbers. A decoding
        state is f (e + 1) + 1 numbers for each key head, whatever the length.

    Use it:
        For long inputs, and where a softmax is wanted but cannot be paid: weights come from the same scores, and the
        error falls as 1 / √features, from a size that depends on how long queries and keys are (below). On one CPU core
        it was 6 times as fast as full attention at 4,096 tokens and 20 times at 16,384; its causal form 3 and 10 times
        as fast as full attention over all keys.

    Leave it:
        Where queries or keys are long: the variance of a weight grows as exp(|q' + k'|²). With unit normal queries and
        keys of 64 numbers that is exp(16): 256 features then err by more than the output itself, and 4,096 by hardly
        less. The estimate is a good one where |q' + k'|² is a few units, |q| + |k| below some 5 for 64 numbers; else
        training has to live with its noise, or with `norms="sqrt_d"`. Below about 1,000 tokens, where full attention is
        faster. Where training cannot call `after_step`: directions then stay the first ones, as with `redraw=0`.

    Source:
        "Rethinking Attention with Performers" (Choromanski et al. 2020, arXiv 2009.14794): lemma 1, sections 2.3 and
        2.4, algorithm 1. Exponents are reduced by the largest of a query's, and of all real keys'; causally by the
        largest so far, so that no number knows of a later key. The paper's code adds 1e-6 to features, after a maximum
        over all keys: that lets later keys and padding move outputs, and makes the estimate a biased one. Here nothing
        is added. Its code redraws in calls that count themselves; here after optimiser steps, in training alone. Its
        generalised attention (a ReLU in place of the exponential) is left out. Exported by `torch.export`, the causal
        form takes O(n²) memory.

    Attributes:
        features: the paper's m: random directions of each key head. Queries of a group use those of their key head.
        redraw: optimiser steps, told by `after_step`, after which directions are drawn anew; 0 for never.
        norms: how long directions are: `chi`, as rows of independent normal numbers, which leaves weights right on
            average, or `sqrt_d`, all alike, which has less variance and a bias that grows with |q' + k'|²
            (at 16 and 64 numbers, half of the weight).
        seed: what directions are drawn from, with the numbers of layer, draw and key head.
    """

    name = "performer"
    family = "reordered products"
    features: int = 256
    redraw: int = 1000
    norms: Literal["chi", "sqrt_d"] = "chi"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse options that make no features."""
        for option, smallest in (("features", 1), ("redraw", 0), ("seed", 0)):
            whole_number(option, getattr(self, option), smallest)
        if self.norms not in NORMS:
            raise ValueError(unknown("norms", self.norms, NORMS))

    @property
    def claims(self) -> Claims:
        """Everything but equality with a softmax, which it only comes near to."""
        return Claims(
            causal=True,
            cross=True,
            any_length=True,
            any_mask=True,
            normalised=True,
            unordered=True,
            streaming=True,
            exportable=True,
            state_size="O(1)",
        )

    def build(
        self,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        layer: int = 0,
    ) -> PerformerLayer:
        """A layer with its first directions."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        return PerformerLayer(self, heads, head_dim, kv_heads, value_dim, layer)

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
        """Features, keys times values, queries times their sum; causally also the pairs within chunks."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        sizes, f = (n_q, n_k, heads, kv_heads, head_dim, value_dim), self.features
        moved, sums, products = tensor_bytes(*sizes), f * (value_dim + 1), 2 * f * (head_dim + value_dim)
        if not causal:
            flops = products * (kv_heads * n_k + heads * n_q) + 2 * f * heads * n_q
            return Cost(flops, 0, moved, kept=kept_bytes(*sizes) + 4 * kv_heads * (sums + n_k + 1))
        n = n_q + missing_rows(n_q)
        chunk, pieces = min(CHUNK, n), -(-n // ROWS)
        pairs, chunks = heads * n * chunk, -(-n // max(chunk, 1))
        flops = 2 * (pairs * (f + value_dim) + heads * n * products) + kv_heads * n * 2 * f * head_dim
        kept = kept_bytes(n, n, heads, heads, head_dim, value_dim) + 4 * heads * (2 * n + pieces * sums)
        return Cost(flops, pairs, moved + 8 * heads * chunks * sums, kept=kept)

    def behind(self, tokens: int) -> "PerformerAttention":
        """Itself: all see all, those in front included."""
        return self

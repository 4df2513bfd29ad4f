"""Performer (FAVOR+): softmax attention estimated by positive random features, so that keys are summed once.

Source: "Rethinking Attention with Performers" (Choromanski et al. 2020, arXiv 2009.14794), algorithm 1 and section 2.
How it is computed is in `_performer`.

Cost: O(n f (d + e)) time, O(n (d + e)) memory; a state is f * (e + 1) + 1 numbers for each key head. `f` features.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from saccade.attention.inputs import hide, needed, validate, validate_built
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, check_sizes, kept_bytes, tensor_bytes
from saccade.attention.mechanisms._feature_map import Sums, asked
from saccade.attention.mechanisms._performer.directions import drawn_directions
from saccade.attention.mechanisms._performer.positive_features import PositiveFeatures, least, lowest
from saccade.attention.mechanisms._performer.shifted_sums import ShiftedSums, joined, shifted_sums
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
            return self._asked(q.to(wide), self._sums(k, v, key_mask)).to(q.dtype)

    def _validate_built(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        validate_built("q", q, self.heads, self.head_dim)
        validate_built("k", k, self.kv_heads, self.head_dim)

    def _features(self, heads: int, like: Tensor) -> PositiveFeatures:
        """Those of so many heads of each example."""
        return PositiveFeatures(self.directions.to(like.dtype), heads, len(like))

    def _sums(self, k: Tensor, v: Tensor, key_mask: Tensor | None) -> ShiftedSums:
        """The sums over some tokens, in fp32 or better."""
        wide = state_dtype(k.dtype)
        k, v = hide(k.to(wide), v.to(wide), key_mask)
        real = None if key_mask is None else key_mask.to(wide).repeat_interleave(self.kv_heads, 0)[..., None]
        found = shifted_sums(k.flatten(0, 1), v.flatten(0, 1), real, self._features(self.kv_heads, k))
        return ShiftedSums(*(each.unflatten(0, k.shape[:2]) for each in found))

    def _asked(self, q: Float[Tensor, "b h q d"], sums: ShiftedSums) -> Float[Tensor, "b h q e"]:
        """Queries against the sums of their key heads."""
        (b, g), group = sums.s.shape[:2], self.heads // self.kv_heads
        rows = rearrange(q, "b (g group) q d -> (b g) (group q) d", g=g)
        flat = Sums(sums.s.flatten(0, 1), sums.z.flatten(0, 1))
        out = asked(rows, flat, self._features(g, q), least(q.dtype))
        return rearrange(out, "(b g) (group q) e -> b (g group) q e", b=b, g=g, group=group)

    def extra_repr(self) -> str:
        """The options."""
        return repr(self.spec)


@dataclass(frozen=True, repr=False)
class PerformerAttention(Mechanism):
    """Softmax attention estimated by positive random features."""

    name = "performer"
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
        return Claims(cross=True, any_length=True, any_mask=True, normalised=True, unordered=True)

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
        raise NotImplementedError

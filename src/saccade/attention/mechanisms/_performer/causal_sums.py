"""The causal form: each key over its own largest feature, each query's sums over the largest one so far.

So every number that a query meets lies between 0 and 1, and none of them knows of a later key. One maximum over all
keys would: through rounding, and through any constant that is added to features.

Cost: that of `_scaled_sums.py`, and the products of keys and directions once more, as a chunk's sums need its maxima.
"""

import torch
from torch import Tensor

from saccade.attention.mechanisms._feature_map import Sums, cuts, room
from saccade.attention.mechanisms._grouped_heads import for_queries
from saccade.attention.mechanisms._performer.positive_features import PositiveFeatures, least, lowest
from saccade.attention.mechanisms._performer.shifted_sums import ShiftedSums, no_sums
from saccade.attention.mechanisms._scaled_sums import Scales, causal_scaled
from saccade.shapes import Bool, Float


def causal_sums(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g n d"],
    v: Float[Tensor, "b g n e"],
    key_mask: Bool[Tensor, "b n"] | None,
    earlier: ShiftedSums | None,
    directions: Float[Tensor, "g f d"],
) -> Float[Tensor, "b h n e"]:
    """What each query gets from the keys up to its own position, and from the sums over earlier ones if there are.

    Args:
        q: queries.
        k: keys of the same positions, zero where hidden.
        v: values, likewise.
        key_mask: True for real keys.
        earlier: sums over keys before all of these.
        directions: of each key head.
    """
    b, h = q.shape[:2]
    earlier = no_sums(b, k.shape[1], directions.shape[1], v.shape[3], like=v) if earlier is None else earlier
    key, row = running_scales(k.detach(), key_mask, earlier.shift, PositiveFeatures(directions, k.shape[1], b))
    rows = (for_queries(each, h) for each in (k, v, key, row, *earlier[:2]))
    k, v, key, row, s, z = (each.flatten(0, 1) for each in rows)
    maps = PositiveFeatures(directions, h, b), PositiveFeatures(directions, h, b, of_keys=True)
    scales = Scales(key, row[:, 1:], row[:, :1])
    out = causal_scaled(q.flatten(0, 1), k, v, None, Sums(s, z), maps, scales, least(q.dtype))
    return out.unflatten(0, (b, h))


def running_scales(
    k: Float[Tensor, "b g n d"],
    key_mask: Bool[Tensor, "b n"] | None,
    begin: Float[Tensor, "b g 1 1"],
    phi: PositiveFeatures,
) -> tuple[Float[Tensor, "b g n 1"], Float[Tensor, "b g n1 1"]]:
    """The scale of each key, and the largest one so far: before the first key, and with each of them."""
    low, flat = lowest(k.dtype), k.flatten(0, 1)
    key = (phi.offset(flat) + _highest(flat, phi)).unflatten(0, k.shape[:2])
    hidden = None if key_mask is None else ~key_mask[:, None, :, None]
    seen = key if hidden is None else key.masked_fill(hidden, low)
    row = torch.cat([begin, seen], 2).cummax(2).values
    row = row.masked_fill(row <= low, 0)  # as long as there is no key, any will do
    return key if hidden is None else key.masked_fill(hidden, -torch.inf), row


def _highest(k: Float[Tensor, "m n d"], phi: PositiveFeatures) -> Float[Tensor, "m n 1"]:
    """The largest product of each key with a direction."""
    work, out = room(k), k.new_empty(*k.shape[:2], 1)
    for cut in cuts(*k.shape[:2]):
        torch.amax(phi.exponents(work, "k", cut.of(k), cut), -1, keepdim=True, out=cut.of(out))
    return out

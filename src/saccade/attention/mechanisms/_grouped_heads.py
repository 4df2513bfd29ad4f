"""Key heads, each with the group of query heads that it serves; sums by features, which a group shares.

Cost: that of `_feature_map.py`; no key is copied for the queries of its group, but by `for_queries`.
"""

from einops import rearrange

from saccade.attention.mechanisms._feature_map import FeatureMap, Sums, asked, sums_of
from saccade.shapes import Bool, Float, Tensor


def for_queries(x: Float[Tensor, "b g ..."], heads: int) -> Float[Tensor, "b h ..."]:
    """Each key head once for every query head of its group; itself where there are as many."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def real_keys(key_mask: Bool[Tensor, "b k"] | None, k: Float[Tensor, "b g k d"]) -> Float[Tensor, "m k 1"] | None:
    """1 for real keys and 0 for hidden ones, for each head; `None` without a mask."""
    return None if key_mask is None else key_mask.to(k.dtype).repeat_interleave(k.shape[1], 0)[..., None]


def sum_keys(
    k: Float[Tensor, "b g k d"], v: Float[Tensor, "b g k e"], key_mask: Bool[Tensor, "b k"] | None, phi: FeatureMap
) -> Sums:
    """The sums over all keys, `[b g f e]` and `[b g f 1]`; hidden ones must be finite."""
    found = sums_of(k.flatten(0, 1), v.flatten(0, 1), real_keys(key_mask, k), phi)
    return Sums(*(each.unflatten(0, k.shape[:2]) for each in found))


def ask(q: Float[Tensor, "b h q d"], sums: Sums, phi: FeatureMap, least: float = 0.0) -> Float[Tensor, "b h q e"]:
    """Queries against the sums of their key heads, `[b g f e]` and `[b g f 1]`."""
    b, g = sums.s.shape[:2]
    rows = rearrange(q, "b (g group) q d -> (b g) (group q) d", g=g)
    out = asked(rows, Sums(*(each.flatten(0, 1) for each in sums)), phi, least)
    return rearrange(out, "(b g) (group q) e -> b (g group) q e", b=b, g=g, group=q.shape[1] // g)

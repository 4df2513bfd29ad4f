"""The same attention in a few plain operators, for `torch.export`: no loop depends on a length.

Cost: all features at once; causally a weight for each pair, O(n^2) memory.
"""

import torch

from saccade.attention.backends._tiles import LOG2E
from saccade.attention.mechanisms._performer.positive_features import least, lowest
from saccade.shapes import Bool, Float, Tensor


def exported(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    key_mask: Bool[Tensor, "b k"] | None,
    directions: Float[Tensor, "g f d"],
    causal: bool,
    q_start: int,
) -> Float[Tensor, "b h q e"]:
    """What each query gets; hidden keys and values must be zero."""
    group, scale = q.shape[1] // k.shape[1], k.shape[3] ** -0.25
    directions, k, v = (x.repeat_interleave(group, -3) for x in (directions, k, v))
    products_q, products_k = (x @ directions.mT * (scale * LOG2E) for x in (q, k))
    phi_q, phi_k = ((x - x.amax(-1, keepdim=True)).exp2() for x in (products_q, products_k))
    key = products_k.amax(-1) - k.square().sum(-1) * (0.5 * scale**2 * LOG2E)
    if key_mask is not None:
        key = key.masked_fill(~key_mask[:, None], 2 * lowest(key.dtype))
    if causal:
        weights = phi_q @ phi_k.mT * _causal_scales(key, q.shape[2], q_start)
        total, sums = weights.sum(-1, keepdim=True), weights @ v
    else:
        phi_k = phi_k * (key - key.amax(-1, keepdim=True).clamp(min=lowest(key.dtype))).exp2()[..., None]
        total, sums = phi_q @ phi_k.sum(-2)[..., None], phi_q @ (phi_k.mT @ v)
    return sums / total.clamp(min=least(q.dtype))


def _causal_scales(key: Float[Tensor, "b h k"], n: int, q_start: int) -> Float[Tensor, "b h q k"]:
    """Of each key for each query, against the largest that the query sees; zero for others."""
    later = torch.arange(key.shape[2], device=key.device) > torch.arange(n, device=key.device)[:, None] + q_start
    seen = key[:, :, None].masked_fill(later, 2 * lowest(key.dtype))
    return (seen - seen.amax(-1, keepdim=True).clamp(min=lowest(key.dtype))).exp2()

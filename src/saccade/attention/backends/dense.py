"""Attention under a pattern by torch's own fused kernel with a dense mask: the baseline, and best when short.

Cost: O(q k) time; memory O(q k) for the mask, none for `Full()` and `Causal()`.
"""

from functools import lru_cache

import torch
from torch.nn.functional import scaled_dot_product_attention

from saccade.attention.patterns import Bound, Causal, Full
from saccade.shapes import Bool, Float, Tensor

KEPT_PAIRS = 2**24
"""Masks up to 4,096 x 4,096 are kept, 16 MB each and eight at most."""


def dense(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    bound: Bound,
    *,
    key_mask: Bool[Tensor, "b k"] | None,
    scale: float,
    bias: Float[Tensor, "#b #h #q #k"] | None,
    dropout: float,
) -> Float[Tensor, "b h q e"]:
    """`scaled_dot_product_attention` with the pattern as its mask."""
    scope = bound.scope
    square = scope.n_q == scope.n_k and scope.q_start == 0
    plain_causal = bound.pattern == Causal() and square and key_mask is None and bias is None
    mask = None if plain_causal else _mask(q, bound, key_mask, bias)
    return scaled_dot_product_attention(
        q, k, v, mask, dropout, is_causal=plain_causal, scale=scale, enable_gqa=k.shape[1] != q.shape[1]
    )


def _mask(
    q: Float[Tensor, "b h q d"], bound: Bound, key_mask: Bool[Tensor, "b k"] | None, bias: Tensor | None
) -> Tensor | None:
    """Pattern, key mask and bias as one mask that torch takes; `None` where all may be seen."""
    allowed = None if bound.pattern == Full() else _allowed(bound, q.device)
    if key_mask is not None:
        live = key_mask[:, None, None]
        allowed = live.expand(-1, 1, q.shape[2], -1) if allowed is None else allowed & live
    if bias is not None and allowed is not None:
        return bias.to(q.dtype).masked_fill(~allowed, -torch.inf)
    return allowed if bias is None else bias.to(q.dtype)


def _allowed(bound: Bound, device: torch.device) -> Bool[Tensor, "..."]:
    """The pattern's mask, kept for the next call where it is not too large: building it costs more than using it."""
    kept = bound.scope.n_q * bound.scope.n_k <= KEPT_PAIRS
    return _kept(bound, device) if kept else bound.dense(device)


@lru_cache(maxsize=8)
def _kept(bound: Bound, device: torch.device) -> Bool[Tensor, "..."]:
    return bound.dense(device)

"""Attention under a pattern by torch's own fused kernel with a dense mask: the baseline, and best when short.

Cost: O(q k) time; memory O(q k) for the mask, none where all pairs are allowed or exactly the causal ones.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention

from saccade.attention.patterns import Bound, Causal, Full
from saccade.shapes import Bool, Float, Tensor

KEPT_PAIRS = 2**22
"""Masks up to 2,048 x 2,048 are kept, 16 MB each in fp32 and eight at most: building one costs more than using it."""


class Mask(NamedTuple):
    """A pattern as torch's kernel takes it.

    Attributes:
        added: 0 where a pair is allowed and -inf where not, or boolean; `None` where all are, or the causal ones.
        causal: whether exactly the causal pairs are allowed, which the kernel knows by itself.
    """

    added: Tensor | None
    causal: bool = False


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
    mask = mask_of(bound, q.dtype, q.device)
    if key_mask is not None or bias is not None:
        mask = Mask(_combined(mask, bound, q, key_mask, bias))
    return scaled_dot_product_attention(
        q, k, v, mask.added, dropout, is_causal=mask.causal, scale=scale, enable_gqa=k.shape[1] != q.shape[1]
    )


def mask_of(bound: Bound, dtype: torch.dtype, device: torch.device) -> Mask:
    """The pattern as torch's kernel takes it, the same object for the same call where it is not too large."""
    scope = bound.scope
    square = scope.n_q == scope.n_k and scope.q_start == 0
    if bound.pattern == Full():
        return Mask(None)
    if bound.pattern == Causal() and square:
        return Mask(None, causal=True)
    if scope.n_q * scope.n_k <= KEPT_PAIRS:
        return _kept(bound, dtype, device)
    return Mask(bound.dense(device))


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is kept serves training, too
def _kept(bound: Bound, dtype: torch.dtype, device: torch.device) -> Mask:
    allowed = bound.dense(device)
    if bool(allowed.all()):
        return Mask(None)
    if allowed.ndim == 2 and torch.equal(allowed, torch.ones_like(allowed).tril()) and bound.scope.q_start == 0:
        return Mask(None, causal=True)
    # The kernel would make the same of a boolean mask in every call.
    return Mask(torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill_(~allowed, -torch.inf))


def _combined(mask: Mask, bound: Bound, q: Tensor, key_mask: Bool[Tensor, "b k"] | None, bias: Tensor | None) -> Tensor:
    """Pattern, key mask and bias in one."""
    allowed = bound.dense(q.device) if mask.causal else mask.added
    if allowed is not None and allowed.dtype != torch.bool:
        allowed = allowed == 0
    if key_mask is not None:
        live = key_mask[:, None, None]
        allowed = live.expand(-1, 1, q.shape[2], -1) if allowed is None else allowed & live
    if bias is None:
        assert allowed is not None
        return allowed
    return bias.to(q.dtype) if allowed is None else bias.to(q.dtype).masked_fill(~allowed, -torch.inf)


def plain(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    causal: bool,
    key_mask: Bool[Tensor, "b k"] | None,
    q_start: int,
    scale: float,
    bias: Float[Tensor, "#b #h #q #k"] | None,
) -> Float[Tensor, "b h q e"]:
    """All keys, or those up to each query, for `torch.export`: with lengths that are known when the graph runs."""
    (n_q, n_k), mask = (q.shape[2], k.shape[2]), None if key_mask is None else key_mask[:, None, None]
    if causal and not (n_q == n_k and q_start == 0 and mask is None and bias is None):
        earlier = torch.arange(n_k, device=q.device) <= torch.arange(n_q, device=q.device)[:, None] + q_start
        mask, causal = earlier if mask is None else earlier & mask, False
    if mask is not None and bias is None:
        mask = mask.expand(q.shape[0], 1, n_q, n_k)
    if bias is not None:
        mask = bias.to(q.dtype) if mask is None else bias.to(q.dtype).masked_fill(~mask, -torch.inf)
    with torch.autocast(q.device.type, enabled=False):
        grouped = bool(k.shape[1] != q.shape[1])
        return scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scale, enable_gqa=grouped)

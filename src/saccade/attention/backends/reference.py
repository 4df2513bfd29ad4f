"""The definition of attention under a pattern, in plain tensor algebra. Slow on purpose; everything is held to it.

Cost: O(q k) time and memory.
"""

import torch
from einops import repeat

from saccade.attention.patterns import Bound
from saccade.shapes import Bool, Float, Tensor


def weights(scores: Float[Tensor, "b h q k"], allowed: Bool[Tensor, "#b #h #q #k"]) -> Float[Tensor, "b h q k"]:
    """Softmax over the allowed keys; zeros, with zero gradient, for a query that may see nothing."""
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1).masked_fill(~allowed, 0)


def reference(
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
    """Softmax attention by its formula, in fp32 or better."""
    group = q.shape[1] // k.shape[1]
    wide = torch.promote_types(q.dtype, torch.float32)
    k, v = (repeat(x, "b g k d -> b (g group) k d", group=group).to(wide) for x in (k, v))
    scores = q.to(wide) @ k.mT * scale
    if bias is not None:
        scores = scores + bias.to(wide)
    allowed = bound.dense(q.device)
    if bias is not None:
        allowed = allowed & (bias != -torch.inf)
    if key_mask is not None:
        allowed = allowed & key_mask[:, None, None]
    kept = torch.dropout(weights(scores, allowed.expand(scores.shape)), dropout, train=True)
    return (kept @ v).to(q.dtype)

"""Efficient attention by its definition, in loops over queries and features, and as a recurrence."""

import torch
from torch import Tensor

from oracles import repeat_heads


def efficient_attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    """Shen et al. 2018, equation 8: rho_q (rho_k^T v), with rho_k a softmax over what each query is allowed to see.

    Where all queries see the same keys that is the paper's; where query i sees keys up to i, the running softmax.
    """
    batch, heads, n_q, dim = q.shape
    n_k = k.shape[2]
    k, v = repeat_heads(k, heads), repeat_heads(v, heads)
    allowed = allowed.expand(batch, heads, n_q, n_k)
    out = []
    for i in range(n_q):
        row = v.new_zeros(batch, heads, v.shape[-1])
        features = torch.exp(q[:, :, i]) / torch.exp(q[:, :, i]).sum(-1, keepdim=True)
        for f in range(dim):
            power = torch.exp(torch.where(allowed[:, :, i], k[..., f], 0.0)) * allowed[:, :, i]
            total = power.sum(-1, keepdim=True)
            over_positions = power / torch.where(total == 0, 1.0, total)
            row = row + features[..., f, None] * (over_positions[..., None] * v).sum(-2)
        out.append(row)
    return torch.stack(out, 2) if out else v.new_zeros(batch, heads, 0, v.shape[-1])


def efficient_recurrent(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
    """The causal form as a recurrence: a mean of values for each feature that each token moves by its share."""
    batch, heads, n, dim = q.shape
    k, v = repeat_heads(k, heads), repeat_heads(v, heads)
    real = torch.ones(batch, n, dtype=torch.bool) if key_mask is None else key_mask
    mean, total = q.new_zeros(batch, heads, dim, v.shape[-1]), q.new_zeros(batch, heads, dim)
    out = []
    for i in range(n):
        power = torch.exp(k[:, :, i]) * real[:, None, i, None]
        total = total + power
        share = power / torch.where(total == 0, 1.0, total)
        mean = mean + share[..., None] * (v[:, :, i, None, :] - mean)
        out.append((torch.softmax(q[:, :, i], -1)[..., None] * mean).sum(-2))
    return torch.stack(out, 2)


def efficient_with_all_weights(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """The same with every exponential of every pair and feature, each below 1: right for any inputs, n^2 d numbers."""
    k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
    peak = k.cummax(2).values if causal else k.amax(2, keepdim=True).expand(-1, -1, q.shape[2], -1)
    seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
    seen = (seen.tril() if causal else seen)[..., None]
    power = torch.exp((k[:, :, None] - peak[:, :, :, None]).masked_fill(~seen, -torch.inf))
    weights = (torch.softmax(q, -1)[:, :, :, None] * power / power.sum(3, keepdim=True)).sum(-1)
    return weights @ v

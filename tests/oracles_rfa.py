"""Naive float64 formulas of Random Feature Attention (Peng et al. 2021), with and without its gate.

Written from the paper, one query or token at a time; nothing here imports `saccade`. Directions are given: `[g D d]`,
one matrix for each key head.
"""

import math

import torch
from torch import Tensor

from oracles import repeat_heads

SHORTEST = 1e-3
"""Vectors shorter than this are not made longer than their share of it."""
LEAST = 1e-3
"""The least that outputs are divided by."""


def unit(x: Tensor) -> Tensor:
    """Section 3.1: queries and keys of length 1."""
    lengths = (x * x).sum(-1, keepdim=True)
    lengths = torch.where(lengths > 0, lengths, 1.0).sqrt() * (lengths > 0)
    return x / lengths.clamp(min=SHORTEST)


def features(x: Tensor, directions: Tensor, sigma: Tensor, temperature: float, kernel: str) -> Tensor:
    """Equation 3 (`gaussian`) or section 3.3 (`arccos`) of [n d] with the directions [D d] and the scales [d]."""
    found = []
    for w in directions:
        turned = unit(x) @ (sigma * w / temperature)
        found += [turned.sin(), turned.cos()] if kernel == "gaussian" else [turned.clamp(min=0)]
    return torch.stack(found, -1) / math.sqrt(len(directions))


def all_features(x: Tensor, directions: Tensor, sigma: Tensor, temperature: float, kernel: str) -> Tensor:
    """The same for every head of [b h n d]."""
    directions, sigma = (repeat_heads(each[None], x.shape[1])[0] for each in (directions, sigma))
    heads = [
        [features(rows, w, s, temperature, kernel) for rows, w, s in zip(example, directions, sigma, strict=True)]
        for example in x
    ]
    return torch.stack([torch.stack(example) for example in heads])


def divided(numerator: Tensor, total: Tensor, least: float) -> Tensor:
    """By the size of the sum of weights, which may have any sign."""
    return numerator / total.abs().clamp(min=least)


def rfa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor,
    directions: Tensor,
    sigma: Tensor,
    temperature: float = 1.0,
    kernel: str = "gaussian",
    least: float = LEAST,
) -> Tensor:
    """Equation 5, query by query: `seen` [b or 1, 1, q, k] says which keys its sums run over."""
    phi_q, phi_k = (all_features(x, directions, sigma, temperature, kernel) for x in (q, k))
    phi_k, v = repeat_heads(phi_k, q.shape[1]), repeat_heads(v, q.shape[1])
    seen = seen.expand(q.shape[0], 1, q.shape[2], k.shape[2])
    rows = []
    for i in range(q.shape[2]):
        weights = (phi_k * phi_q[:, :, i, None]).sum(-1) * seen[:, :, i]
        rows.append(divided((weights[..., None] * v).sum(2), weights.sum(2)[..., None], least))
    return torch.stack(rows, 2) if rows else q.new_zeros(*q.shape[:3], v.shape[3])


def rfa_gated(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor,
    directions: Tensor,
    sigma: Tensor,
    key_mask: Tensor | None = None,
    temperature: float = 1.0,
    kernel: str = "gaussian",
    least: float = LEAST,
    q_start: int = 0,
) -> Tensor:
    """Equation 8, token by token: S_t = g_t S_(t-1) + (1 - g_t) phi(k_t) v_t^T, and z alike; hidden ones change none.

    Query i is asked of the sums behind token `q_start + i`, or behind the last one.
    """
    phi_q, phi_k = (all_features(x, directions, sigma, temperature, kernel) for x in (q, k))
    phi_k, v, gate = (repeat_heads(x, q.shape[1]) for x in (phi_k, v, gate))
    s = q.new_zeros(*q.shape[:2], phi_k.shape[3], v.shape[3])
    z = q.new_zeros(*q.shape[:2], phi_k.shape[3])
    rows = []
    for t in range(max(k.shape[2], q_start + q.shape[2])):
        if t < k.shape[2]:
            real = torch.ones(len(k), dtype=torch.bool) if key_mask is None else key_mask[:, t]
            g, rest = torch.sigmoid(gate[:, :, t]), torch.sigmoid(-gate[:, :, t])
            new_s = g[..., None] * s + (rest * phi_k[:, :, t])[..., None] * v[:, :, t, None]
            new_z = g * z + rest * phi_k[:, :, t]
            s, z = torch.where(real[:, None, None, None], new_s, s), torch.where(real[:, None, None], new_z, z)
        if q_start <= t < q_start + q.shape[2]:
            asked = phi_q[:, :, t - q_start]
            rows.append(divided((asked[..., None] * s).sum(2), (asked * z).sum(2)[..., None], least))
    return torch.stack(rows, 2) if rows else q.new_zeros(*q.shape[:3], v.shape[3])


def tempered_softmax(q: Tensor, k: Tensor, v: Tensor, temperature: float) -> Tensor:
    """What the features estimate: softmax attention of unit vectors, whose scores are divided by temperature^2."""
    k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
    scores = (unit(q)[:, :, :, None] * unit(k)[:, :, None]).sum(-1) / temperature**2
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return (weights / weights.sum(-1, keepdim=True)) @ v


def gaussian_kernel(x: Tensor, y: Tensor) -> Tensor:
    """The mean of phi(x) . phi(y) over random directions (Rahimi & Recht 2007)."""
    return torch.exp(-((x - y) ** 2).sum(-1) / 2)


def gaussian_variance(x: Tensor, y: Tensor, directions: int) -> Tensor:
    """Its variance: phi(x) . phi(y) is the mean of cos(w . (x - y)) over the directions w.

    E cos(t) = exp(-s/2) and E cos(t)^2 = (1 + exp(-2s)) / 2 for t normal with variance s = |x - y|^2, so one cosine
    has the variance (1 - exp(-s))^2 / 2.
    """
    apart = ((x - y) ** 2).sum(-1)
    return (1 - torch.exp(-apart)) ** 2 / (2 * directions)


def arccos_kernel(x: Tensor, y: Tensor) -> Tensor:
    """The mean of relu(w . x) relu(w . y) for unit vectors: half the arc-cosine kernel of order 1 (Cho & Saul 2009)."""
    cosine = (x * y).sum(-1).clamp(-1, 1)
    angle = torch.arccos(cosine)
    return (angle.sin() + (math.pi - angle) * cosine) / (2 * math.pi)

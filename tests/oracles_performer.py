"""FAVOR+ in naive float64, from "Rethinking Attention with Performers" (Choromanski et al. 2020, arXiv 2009.14794).

Nothing here imports `saccade`; loops are welcome. All heads have keys of their own (repeat grouped ones before);
directions are `[heads, features, dim]`, one set for each head, for inputs not yet divided by the fourth root of dim.
"""

import math

import torch
from torch import Tensor


def exponents(x: Tensor, directions: Tensor) -> Tensor:
    """Lemma 1: w . x - |x|^2 / 2 of every feature, with x d^(-1/4) in the place of x, as in its section 2.3."""
    x = x / x.shape[-1] ** 0.25
    return torch.einsum("bhnd,hfd->bhnf", x, directions) - (x * x).sum(-1, keepdim=True) / 2


def features(x: Tensor, directions: Tensor) -> Tensor:
    """The positive features themselves, m^(-1/2) exp(w . x - |x|^2 / 2), with nothing taken off the exponents."""
    return torch.exp(exponents(x, directions)) / math.sqrt(directions.shape[1])


def performer(q: Tensor, k: Tensor, v: Tensor, directions: Tensor, allowed: Tensor) -> Tensor:
    """Pair by pair: a weight is the sum over features of the product of both; zeros where a query sees nothing.

    Products are taken as sums of exponents, and the largest of a row is taken off them: any input can be had.
    """
    batch, heads, n_q, _ = q.shape
    n_k = k.shape[2]
    of_q, of_k = exponents(q, directions), exponents(k, directions)
    allowed = allowed.expand(batch, heads, n_q, n_k)
    out = []
    for i in range(n_q):
        if not n_k:
            out.append(v.new_zeros(batch, heads, v.shape[-1]))
            continue
        logs = [torch.logsumexp(of_q[:, :, i] + of_k[:, :, j], -1) for j in range(n_k)]
        logs = torch.stack(logs, -1).masked_fill(~allowed[:, :, i], -math.inf)
        highest = logs.amax(-1, keepdim=True).detach()
        weights = torch.exp(logs - torch.where(highest == -math.inf, 0.0, highest))
        total = weights.sum(-1, keepdim=True)
        row = (weights[..., None] * v).sum(-2)
        out.append(row / torch.where(total == 0, 1.0, total))
    return torch.stack(out, 2) if out else v.new_zeros(batch, heads, 0, v.shape[-1])


def performer_recurrent(q: Tensor, k: Tensor, v: Tensor, directions: Tensor, key_mask: Tensor | None = None) -> Tensor:
    """Algorithm 1 from left to right, with the features as they are: prefix sums of phi(k) v^T and of phi(k)."""
    batch, heads, n, _ = q.shape
    phi_q, phi_k = features(q, directions), features(k, directions)
    real = torch.ones(batch, n, dtype=torch.bool) if key_mask is None else key_mask
    s = v.new_zeros(batch, heads, phi_k.shape[-1], v.shape[-1])
    z = v.new_zeros(batch, heads, phi_k.shape[-1])
    out = []
    for i in range(n):
        key = phi_k[:, :, i] * real[:, None, i, None]
        s = s + key[..., :, None] * v[:, :, i, None, :]
        z = z + key
        total = (phi_q[:, :, i] * z).sum(-1, keepdim=True)
        row = (phi_q[:, :, i, :, None] * s).sum(-2)
        out.append(row / torch.where(total == 0, 1.0, total))
    return torch.stack(out, 2)


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """The softmax kernel exp(x . y / sqrt(d)) that the features estimate."""
    return torch.exp((x * y).sum(-1) / math.sqrt(x.shape[-1]))


def variance(x: Tensor, y: Tensor, m: int) -> Tensor:
    """Lemma 2 for m independent directions.

    With s = x + y, both scaled: one feature's product is exp(w . s - (|x|^2 + |y|^2) / 2), and exp(w . s) has the mean
    exp(|s|^2 / 2) and the mean square exp(2 |s|^2); |s|^2 = |x|^2 + |y|^2 + 2 x . y gives the rest.
    """
    x, y = (each / each.shape[-1] ** 0.25 for each in (x, y))
    s = ((x + y) ** 2).sum(-1)
    return torch.exp(s + 2 * (x * y).sum(-1)) * (1 - torch.exp(-s)) / m

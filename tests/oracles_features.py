"""Feature maps from their papers, one vector after the other in float64, and the attention that they make."""

import math

import torch
from torch import Tensor

from oracles import repeat_heads


def elu(x: Tensor) -> Tensor:
    """Katharopoulos et al. 2020, equation 7."""
    return torch.where(x > 0, x + 1, torch.exp(torch.where(x > 0, 0.0, x)))


def relu(x: Tensor) -> Tensor:
    """Kasai et al. 2021, equation 5, with the identity as its matrix."""
    return torch.where(x > 0, x, 0.0)


def dpfp(x: Tensor, nu: int) -> Tensor:
    """Schlag et al. 2021, equation 37: a feature for each i up to 2d and each v up to nu."""
    r = torch.cat([relu(x), relu(-x)], -1)
    dim = r.shape[-1]
    return torch.stack([r[..., i] * r[..., (i + v) % dim] for v in range(1, nu + 1) for i in range(dim)], -1)


def taylor(x: Tensor) -> Tensor:
    """Arora et al. 2024, section 4: [1, x / d^(1/4), vec(x x^T) / (sqrt(2) sqrt(d))], every product of two numbers."""
    dim = x.shape[-1]
    products = [x[..., i] * x[..., j] / math.sqrt(2 * dim) for i in range(dim) for j in range(dim)]
    return torch.cat([torch.ones_like(x[..., :1]), x / dim**0.25, torch.stack(products, -1)], -1)


def hedgehog(x: Tensor) -> Tensor:
    """Zhang et al. 2024, section 4.2, of what was projected: the exponentials of x and of -x, each over their sum."""
    halves = [torch.exp(sign * x) for sign in (1, -1)]
    return torch.cat([half / half.sum(-1, keepdim=True) for half in halves], -1)


def attention_by_features(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    """Weights phi(q) . phi(k) over their sum, given features; zeros where all weights are 0."""
    weights = q @ repeat_heads(k, q.shape[1]).mT * allowed
    total = weights.sum(-1, keepdim=True)
    return weights / torch.where(total == 0, 1.0, total) @ repeat_heads(v, q.shape[1])

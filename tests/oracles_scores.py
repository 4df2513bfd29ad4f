"""Naive formulas of attention's other scores and weights, from their papers: one pair, one query at a time.

Nothing here imports `saccade`. Everything is one example and one head: q `[q d]`, k `[k d]`, v `[k e]`, and
`seen` `[q k]`, True where a query may look at a key. Gradients come from autograd.
"""

import math

import torch
from torch import Tensor


def scaled_dot(q: Tensor, k: Tensor) -> Tensor:
    """Vaswani et al. 2017, equation 1."""
    return dot(q, k) / math.sqrt(q.shape[1])


def dot(q: Tensor, k: Tensor) -> Tensor:
    """Luong et al. 2015, equation 8, `dot`."""
    return torch.stack([torch.stack([(query * key).sum() for key in k]) for query in q])


def cosine(q: Tensor, k: Tensor, temperature: Tensor | float) -> Tensor:
    """Liu et al. 2022 (Swin V2), equation 2: cos(q, k) / tau."""
    rows = []
    for query in q:
        sizes = [(query**2).sum().sqrt() * (key**2).sum().sqrt() for key in k]
        rows.append(torch.stack([(query * key).sum() / size for key, size in zip(k, sizes, strict=True)]))
    return torch.stack(rows) / temperature


def additive(q: Tensor, k: Tensor, to_query: Tensor, to_key: Tensor, weight: Tensor) -> Tensor:
    """Bahdanau et al. 2015, appendix A.1.2: v^T tanh(W s + U h), with W and U `[d f]` and v `[f]`."""
    return torch.stack([torch.stack([weight @ torch.tanh(x @ to_query + y @ to_key) for y in k]) for x in q])


def softmax(scores: Tensor, seen: Tensor) -> Tensor:
    """Vaswani et al. 2017; a query that sees nothing gives no weight to anything."""
    rows = []
    for row, visible in zip(scores, seen, strict=True):
        weights = torch.zeros_like(row)
        if visible.any():
            weights = torch.zeros_like(row).index_put((visible.nonzero()[:, 0],), row[visible].softmax(0))
        rows.append(weights)
    return torch.stack(rows)


def relu(scores: Tensor, seen: Tensor) -> Tensor:
    """Wortsman et al. 2023, equation 2, with L the number of keys that the query sees."""
    rows = [row.clamp(min=0) * visible / max(1, int(visible.sum())) for row, visible in zip(scores, seen, strict=True)]
    return torch.stack(rows)


def top_k(scores: Tensor, seen: Tensor, count: int) -> Tensor:
    """Gupta et al. 2021: softmax over the `count` highest scores; those equal to the lowest of them stay, too."""
    kept = torch.zeros_like(seen)
    for i, (row, visible) in enumerate(zip(scores, seen, strict=True)):
        ranked = sorted(row[visible].tolist(), reverse=True)
        if ranked:
            kept[i] = visible & (row >= ranked[min(count, len(ranked)) - 1])
    return softmax(scores, kept)

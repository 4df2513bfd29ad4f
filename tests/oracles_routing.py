"""Routing attention in naive float64, from "Efficient Content-Based Sparse Attention with Routing Transformers".

Roy, Saffar, Vaswani & Grangier 2021 (TACL; arXiv 2003.05997 of 2020), Algorithm 1. Nothing here imports `saccade`;
loops are welcome.
All heads have keys of their own (repeat grouped ones before), centroids are `[heads, clusters, dim]`.
"""

import math

import torch
from torch import Tensor


def layer_norm(x: Tensor) -> Tensor:
    """Algorithm 1, "LayerNorm: scale, bias disabled", with the usual 1e-5 under the root."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + 1e-5)


def products(x: Tensor, centroids: Tensor) -> list[list[float]]:
    """Of each token with each centroid."""
    return (x[:, None] * centroids).sum(-1).detach().tolist()


def nearest(x: Tensor, centroids: Tensor) -> list[int]:
    """For each token the centroid with the largest product."""
    return [max(range(len(row)), key=lambda c: (row[c], -c)) for row in products(x, centroids)]


def members(scores: list[float], real: list[int], window: int) -> list[int]:
    """The real positions with the largest products, in the order of positions; of equals the earlier ones."""
    best = sorted(real, key=lambda i: (-scores[i], i))
    return sorted(best[:window])


def softmax_row(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    scores = (keys * query).sum(-1) / math.sqrt(query.shape[0])
    weights = torch.exp(scores - scores.max().detach())
    return (weights[:, None] * values).sum(0) / weights.sum()


def real_positions(key_mask: Tensor | None, example: int, n: int) -> list[int]:
    return [i for i in range(n) if key_mask is None or bool(key_mask[example, i])]


def routing(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    centroids: Tensor,
    window: int | None = None,
    key_mask: Tensor | None = None,
    raw: bool = False,
) -> Tensor:
    """Algorithm 1, not left to right: the mean of what the clusters of a token give it, zeros where it is in none."""
    batch, heads, n, _ = q.shape
    unit_q, unit_k = layer_norm(q), layer_norm(k)
    score_q, score_k = (q, k) if raw else (unit_q, unit_k)
    rows = [[v.new_zeros(v.shape[-1]) for _ in range(n)] for _ in range(batch * heads)]
    for b in range(batch):
        real = real_positions(key_mask, b, n)
        live = max(real) + 1 if real else 0
        width = math.ceil(live / centroids.shape[1]) if window is None else min(window, live)
        for h in range(heads):
            given: list[list[Tensor]] = [[] for _ in range(n)]
            of_queries, of_keys = products(unit_q[b, h], centroids[h]), products(unit_k[b, h], centroids[h])
            for c in range(centroids.shape[1]) if real else ():
                queries = members([row[c] for row in of_queries], real, width)
                keys = members([row[c] for row in of_keys], real, width)
                for i in queries:
                    given[i].append(softmax_row(score_q[b, h, i], score_k[b, h, keys], v[b, h, keys]))
            for i in range(n):
                if given[i]:
                    rows[b * heads + h][i] = sum(given[i], torch.zeros_like(v[0, 0, 0])) / len(given[i])
    flat = [row for each in rows for row in each]
    return (torch.stack(flat) if flat else v.new_zeros(0, v.shape[-1])).reshape(batch, heads, n, -1)


def causal_routing(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    centroids: Tensor,
    window: int | None = None,
    key_mask: Tensor | None = None,
    raw: bool = False,
) -> Tensor:
    """The causal-safe variant: a query sees itself and the earlier keys that have the same nearest centroid.

    With a window it sees the latest of them, `window` with itself.
    """
    batch, heads, n, _ = q.shape
    unit_q, unit_k = layer_norm(q), layer_norm(k)
    score_q, score_k = (q, k) if raw else (unit_q, unit_k)
    rows = []
    for b in range(batch):
        real = real_positions(key_mask, b, n)
        for h in range(heads):
            of_query, of_key = nearest(unit_q[b, h], centroids[h]), nearest(unit_k[b, h], centroids[h])
            for i in range(n):
                if i not in real:
                    rows.append(v.new_zeros(v.shape[-1]))
                    continue
                seen = [j for j in real if j < i and of_key[j] == of_query[i]]
                if window is not None:
                    seen = seen[max(0, len(seen) - (window - 1)) :]
                seen = [*seen, i]
                rows.append(softmax_row(score_q[b, h, i], score_k[b, h, seen], v[b, h, seen]))
    return (torch.stack(rows) if rows else v.new_zeros(0, v.shape[-1])).reshape(batch, heads, n, -1)


def moved(centroids: Tensor, inputs: list[Tensor], key_mask: Tensor | None, decay: float) -> Tensor:
    """Algorithm 1, the last line, with the mean of all queries and keys of a centroid in place of half their sum.

    A centroid that is nearest to nothing stays.
    """
    result = centroids.clone()
    for h in range(centroids.shape[0]):
        found: dict[int, list[Tensor]] = {}
        for x in inputs:
            for b in range(x.shape[0]):
                unit = layer_norm(x[b, h])
                closest = nearest(unit, centroids[h])
                for i in real_positions(key_mask, b, x.shape[2]):
                    found.setdefault(closest[i], []).append(unit[i])
        for c, vectors in found.items():
            result[h, c] = decay * centroids[h, c] + (1 - decay) * torch.stack(vectors).mean(0)
    return result


def commitment(centroids: Tensor, inputs: list[Tensor], key_mask: Tensor | None) -> Tensor:
    """van den Oord et al. 2017, the last term of equation 3: squared distances to the nearest centroid, in the mean."""
    found = []
    for x in inputs:
        for b in range(x.shape[0]):
            for h in range(x.shape[1]):
                unit = layer_norm(x[b, h])
                closest = nearest(unit, centroids[h])
                for i in real_positions(key_mask, b, x.shape[2]):
                    found.append(((unit[i] - centroids[h, closest[i]].detach()) ** 2).sum())
    return torch.stack(found).mean() if found else torch.zeros(())

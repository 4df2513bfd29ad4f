"""Naive float64 formulas of LSH attention (Reformer, Kitaev, Kaiser and Levskaya 2020), apart from the code.

Everything is put as a table that says in how many rounds a query meets a key; the softmax is then one line.
"""

import math

import torch
from torch import Tensor


def digits(live: int, bucket: int) -> list[int]:
    """Section 2: 2n/m buckets; where they are more than 64 they are numbered by two even digits, near the root."""
    buckets = 2 * math.ceil(live / bucket)
    return split(buckets)


def split(buckets: int) -> list[int]:
    """One digit up to 64 buckets, otherwise the nearest even number above the root, and what is then needed."""
    if buckets <= 64:
        return [buckets]
    first = 2 * math.ceil(math.sqrt(buckets) / 2)
    return [first, 2 * math.ceil(buckets / first / 2)]


def hashed(x: Tensor, rotations: list[Tensor]) -> int:
    """Section 2: argmax of [xR; -xR], digit by digit. Each rotation is [d, half as many directions as the digit]."""
    number = 0
    for rotation in rotations:
        turned = (x @ rotation).tolist()
        both = turned + [-value for value in turned]
        number = number * len(both) + both.index(max(both))
    return number


def buckets_of(q: Tensor, real: list[int], rotations: list[Tensor]) -> dict[int, int]:
    """The bucket of each real token of one head in one round."""
    return {i: 0 if not rotations else hashed(q[i], rotations) for i in real}


def met_in_round(bucket: dict[int, int], m: int, same_bucket: bool) -> set[tuple[int, int]]:
    """Section 2: sort by (bucket, position), cut into chunks of m; a query sees its own chunk and the one before."""
    order = sorted(bucket, key=lambda i: (bucket[i], i))
    chunk = {token: place // m for place, token in enumerate(order)}
    pairs = ((i, j) for i in order for j in order if i != j and 0 <= chunk[i] - chunk[j] <= 1)
    return {(i, j) for i, j in pairs if not same_bucket or bucket[i] == bucket[j]}


def met_causally(bucket: dict[int, int], m: int) -> set[tuple[int, int]]:
    """Each bucket cut into chunks of m by position: earlier tokens of the own chunk and of the one before."""
    pairs, members = set(), {}
    for i in sorted(bucket):
        members.setdefault(bucket[i], []).append(i)
    for tokens in members.values():
        for a, i in enumerate(tokens):
            pairs |= {(i, tokens[b]) for b in range(a) if a // m - b // m <= 1}
    return pairs


def meetings(rounds: list[set[tuple[int, int]]], n: int) -> Tensor:
    """In how many rounds each query meets each key."""
    table = torch.zeros(n, n, dtype=torch.float64)
    for pairs in rounds:
        for i, j in pairs:
            table[i, j] += 1
    return table


def attention(q: Tensor, v: Tensor, met: Tensor, real: Tensor, unique: bool = False) -> Tensor:
    """Softmax over q k / sqrt(d) + log(meetings), k = q / |q|; a real token that meets nothing sees itself.

    q is [b h n d], v [b g n e], met [b h n n], real [b n]. The sum over rounds of exp(score) is the paper's
    combination of rounds by their log-sum-exp; with `unique` meetings count once, as in its appendix A.
    """
    n, d = q.shape[2:]
    q = torch.where(real[:, None, :, None], q, 0.0)
    v = torch.where(real[:, None, :, None], v, 0.0).repeat_interleave(q.shape[1] // v.shape[1], 1)
    norm = q.norm(dim=-1, keepdim=True)
    keys = q / torch.where(norm > 0, norm, 1.0)
    count = met.clamp(max=1) if unique else met
    alone = (met.sum(-1, keepdim=True) == 0) & real[:, None, :, None]
    count = count + alone * torch.eye(n, dtype=q.dtype)
    scores = q @ keys.mT / math.sqrt(d)
    scores = scores.masked_fill(count == 0, -math.inf)
    top = scores.amax(-1, keepdim=True).clamp(min=-1e300).detach()
    weights = count * (scores - top).exp()
    total = weights.sum(-1, keepdim=True)
    # What is alone sees itself with weight 1, whatever its score: there is nothing to pass a gradient to.
    return weights / torch.where(total == 0, 1.0, total) @ v

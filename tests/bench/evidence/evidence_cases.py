"""Weights whose answer is known, for the tests of the evidence."""

import torch

from saccade.bench.evidence.candidates import candidates
from saccade.bench.evidence.gather import Evidence, weigh


def softmax_weights(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def banded(n, reach, layers=1, heads=1):
    """Equal weights within a window."""
    at = torch.arange(n)
    band = ((at[:, None] - at).abs() <= reach).float()
    return (band / band.sum(-1, keepdim=True)).expand(layers, heads, n, n)


def of_rank(rank, n, layers=1, heads=1):
    """Rows of one sum: `rank` kinds of query, each with equal weights on keys of its own."""
    kind = torch.arange(n) % rank
    same = (kind[:, None] == kind).float()
    return (same / same.sum(-1, keepdim=True)).expand(layers, heads, n, n)


def weighed(*examples, mechanisms=()) -> Evidence:
    return weigh(examples, candidates(mechanisms), [each.shape[-1] for each in examples])

"""How much of a trained model's attention each pattern would keep, if its weights were cut to the pattern.

A pattern is promising where it keeps far more of the weight than its share of the pairs. What no pattern can beat is
an oracle that sees the weights: as many keys a query, but the heaviest ones. Weights count by their size, as some
mechanisms imply negative ones, and every query counts the same. Cost: O(n^2 log n) for each head, O(n^2) for each
pattern.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from saccade.attention import Mechanism
from saccade.attention.patterns import Pattern
from saccade.bench.evidence.candidates import pattern_of
from saccade.shapes import Bool, Float, Tensor


@dataclass(frozen=True, eq=False)
class Kept:
    """What one pattern would keep.

    Attributes:
        mechanism: the pattern, as a mechanism to train.
        pairs: share of all pairs that it visits.
        kept: share of the weight on them, by layer and head: the mean over queries.
        best: the same for the oracle: as many keys for each query, the heaviest.
    """

    mechanism: Mechanism
    pairs: float
    kept: Float[Tensor, "layers h"]
    best: Float[Tensor, "layers h"]

    @property
    def mean(self) -> float:
        """The share that is kept over all layers and heads."""
        return self.kept.mean().item()


class KeptWeight:
    """Holds the weights of examples against patterns.

    Args:
        mechanisms: the patterns, as mechanisms.
    """

    def __init__(self, mechanisms: Sequence[Mechanism]) -> None:
        self.mechanisms = list(mechanisms)
        self.pairs = torch.zeros(len(self.mechanisms), dtype=torch.double)
        self.all_pairs, self.queries = 0, torch.zeros(1)
        self.kept: Tensor = torch.zeros(len(self.mechanisms), 1, 1)
        self.best: Tensor = torch.zeros(len(self.mechanisms), 1, 1)

    def add(self, weights: Float[Tensor, "layers h n n"]) -> None:
        """Count one example, whose tokens are all real."""
        layers, heads, n, _ = weights.shape
        size = weights.abs()
        size = size / size.sum(-1, keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)
        best = size.sort(-1, descending=True).values.cumsum(-1)
        masks = [
            torch.stack([_mask(_pattern(each, layer), n, heads) for layer in range(layers)]) for each in self.mechanisms
        ]
        self.kept = self.kept + torch.stack([(size * mask).sum((-1, -2)) for mask in masks])
        self.best = self.best + torch.stack([_of_the_best(best, mask.sum(-1)) for mask in masks])
        self.pairs += torch.stack([mask.double().mean() for mask in masks]) * n * n
        self.all_pairs += n * n
        # A query that sees nothing has nothing to keep.
        self.queries = self.queries + (size.sum(-1) > 0).sum(-1)

    @property
    def results(self) -> list[Kept]:
        """What each would keep, most first; of those that keep alike, the one with the fewest pairs."""
        shares = zip(self.mechanisms, self.pairs / self.all_pairs, self.kept, self.best, strict=True)
        queries = self.queries.clamp(min=1)
        found = [Kept(spec, pairs.item(), kept / queries, best / queries) for spec, pairs, kept, best in shares]
        return sorted(found, key=lambda each: (-round(each.mean, 4), each.pairs))


def _of_the_best(cumulative: Float[Tensor, "layers h n n"], keys: Tensor) -> Float[Tensor, "layers h"]:
    """The weight of the heaviest `keys[query]` keys, summed over queries; `cumulative` starts with the heaviest."""
    index = (keys - 1).clamp(min=0).expand(cumulative.shape[:-1])[..., None]
    return (cumulative.gather(-1, index)[..., 0] * (keys > 0)).sum(-1)


@lru_cache(maxsize=256)
def _pattern(spec: Mechanism, layer: int) -> Pattern:
    pattern = pattern_of(spec, layer)
    assert pattern is not None
    return pattern


@lru_cache(maxsize=64)
def _mask(pattern: Pattern, n: int, heads: int) -> Bool[Tensor, "#h n n"]:
    """The whole mask. Kept, as the examples of a run are mostly of one length."""
    mask = pattern.dense(n, n, heads=heads)
    return mask[None] if mask.ndim == 2 else mask[0]

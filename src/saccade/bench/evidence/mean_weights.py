"""Mean weights: where the heads of a trained model look, by place and by distance.

Examples differ in length, so each pair of positions has its own count: the mean at (query, key) is over the examples
that reach so far. Distances count from the query back: positive where the key stands before it.
"""

import torch
from torch.nn.functional import pad

from saccade.shapes import Float, Tensor


class MeanWeights:
    """Adds up the weights of examples and gives their means.

    Args:
        longest: tokens of the longest example.
    """

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.total: Tensor | None = None
        self.examples = torch.zeros(longest, longest)
        self.by_distance: Tensor = torch.zeros(1)
        self.pairs = torch.zeros(2 * longest - 1)

    def add(self, weights: Float[Tensor, "layers h n n"]) -> None:
        """Count one example, whose tokens are all real."""
        n, missing = weights.shape[-1], self.longest - weights.shape[-1]
        placed = pad(weights, (0, missing, 0, missing))
        distances = pad(diagonal_sums(weights), (missing, missing))
        self.total = placed if self.total is None else self.total + placed
        self.by_distance = self.by_distance + distances
        self.examples[:n, :n] += 1
        self.pairs += pad(n - distances_of(n).abs(), (missing, missing))

    @property
    def mean(self) -> Float[Tensor, "layers h n n"]:
        """The mean weight at each place."""
        assert self.total is not None
        return self.total / self.examples.clamp(min=1)

    @property
    def mean_by_distance(self) -> Float[Tensor, "layers h m"]:
        """The mean weight of the pairs at each distance, from `1 - n` (key far after the query) to `n - 1`."""
        return self.by_distance / self.pairs.clamp(min=1)

    @property
    def half_within(self) -> Float[Tensor, "layers h"]:
        """The distance, forward or back, within which half of all the weight lies."""
        before = self.by_distance.flip(-1)[..., : self.longest]
        after = self.by_distance[..., : self.longest]
        # Both run from the farthest to distance 0, which is in both.
        either = (before + after).flip(-1)
        either[..., 0] /= 2
        within = either.cumsum(-1)
        return (within < within[..., -1:] / 2).sum(-1).to(within)


def distances_of(n: int) -> Float[Tensor, " m"]:
    """The distances between a query and a key of `n` positions, `1 - n .. n - 1`."""
    return torch.arange(1.0 - n, n)


def diagonal_sums(weights: Float[Tensor, "*heads n n"]) -> Float[Tensor, "*heads m"]:
    """The sum of the weights at each distance, `1 - n .. n - 1`.

    Rows written one after the other with n zeros behind each, and read in rows of 2n - 1, move by one a row: then
    equal distances stand in one column.
    """
    n = weights.shape[-1]
    written = pad(weights.flip(-1), (0, n)).flatten(-2)[..., : n * (2 * n - 1)]
    return written.unflatten(-1, (n, 2 * n - 1)).sum(-2)

"""Singular values of attention weights: is a trained model's attention low rank?

Linformer (Wang et al. 2020, figure 1) shows the cumulative singular values of the weights, divided by their sum: where
few of the n hold most, the weights are near a matrix of that rank, and keys and values can be projected to so many.
The spectra here are of the weights of single examples. That of a mean over examples says little: averaging smooths
away what differs. Cost: O(n^3) for each head and example.
"""

import torch

from saccade.shapes import Float, Tensor

GRID = 100
"""Points of the mean curve: examples of different lengths are averaged at equal shares of their n."""

SHARES = (0.9, 0.99)
"""Shares of the spectrum for which the number of singular values is counted."""


def cumulative(values: Float[Tensor, "*heads n"]) -> Float[Tensor, "*heads n"]:
    """The share of their sum that the first 1, 2, .. n singular values hold."""
    sums = values.cumsum(-1)
    return sums / sums[..., -1:]


def needed(cumulative: Float[Tensor, "*heads n"], share: float) -> Float[Tensor, "*heads"]:
    """How many of the largest singular values hold this share of the sum."""
    # Without the margin, r equal values in which rounding leaves a hair less than the whole would ask for r + 1.
    return ((cumulative < share - 1e-9).sum(-1) + 1).double()


def numerical_rank(values: Float[Tensor, "*heads n"], epsilon: float) -> Float[Tensor, "*heads"]:
    """How many singular values are no rounding: more than n times `epsilon` of the largest, as in `matrix_rank`."""
    return (values > values[..., :1] * values.shape[-1] * epsilon).sum(-1).double()


class Spectra:
    """Averages the spectra of the weights of examples."""

    def __init__(self) -> None:
        self.examples, self.tokens = 0, 0
        self._curve: Tensor = torch.zeros(1)
        self._rank: Tensor = torch.zeros(1)
        self._needed: dict[tuple[str, float], Tensor] = {}

    def add(self, weights: Float[Tensor, "layers h n n"]) -> None:
        """Count one example, whose tokens are all real."""
        n = weights.shape[-1]
        values = torch.linalg.svdvals(weights.double())
        held = {"sum": cumulative(values), "squares": cumulative(values.square())}
        for kind, curve in held.items():
            for share in SHARES:
                self._needed[kind, share] = self._needed.get((kind, share), 0) + needed(curve, share)
        # The point at x holds the first ceil(x n) values; in whole numbers, so that 1/4 of 512 is 128.
        first = (torch.arange(1, GRID + 1) * n + GRID - 1) // GRID
        self._curve = self._curve + torch.nn.functional.pad(held["sum"][..., first - 1], (1, 0))
        self._rank = self._rank + numerical_rank(values, torch.finfo(weights.dtype).eps)
        self.examples, self.tokens = self.examples + 1, self.tokens + n

    @property
    def length(self) -> float:
        """The mean n."""
        return self.tokens / self.examples

    @property
    def curve(self) -> Float[Tensor, "layers h points"]:
        """The mean share of the sum that the first 0 %, 1 %, .. 100 % of the singular values hold."""
        return self._curve / self.examples

    @property
    def rank(self) -> Float[Tensor, "layers h"]:
        """The mean numerical rank."""
        return self._rank / self.examples

    def needed(self, share: float, kind: str = "sum") -> Float[Tensor, "layers h"]:
        """The mean number of singular values that hold a share.

        Args:
            share: one of `SHARES`.
            kind: of the `sum` of the values, as in Linformer, or of the `squares`: 1 minus this share is the squared
                relative error of the nearest matrix of that rank (Eckart and Young 1936).
        """
        return self._needed[kind, share] / self.examples

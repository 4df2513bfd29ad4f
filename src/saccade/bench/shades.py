"""A square of weights as a small square of ink from -1 to 1, which terminals and images draw alike."""

import torch
from torch.nn.functional import adaptive_avg_pool2d

from saccade.shapes import Float, Tensor

PAPER, INK = (238, 242, 247), (8, 64, 129)
"""The colours of no ink and full ink. Only the lightness tells them apart, so every eye can."""

NEGATIVE = (194, 65, 12)
"""The colour of full ink below zero."""

FULL_INK = 10
"""How many times an equal share of its query's weight a key needs for full ink: one scale for everything."""


def shares(weights: Float[Tensor, "*h q k"]) -> Float[Tensor, "*h q k"]:
    """Each weight as its share of all that its query gives, signs aside; zeros where a query gives none."""
    return weights / weights.abs().sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def strength(share: Float[Tensor, "*h q k"]) -> Float[Tensor, "*h q k"]:
    """How much ink each share of a query's weight asks for: 1, full ink, for `FULL_INK` equal shares."""
    return share * share.shape[-1] / FULL_INK


def ink(strength: Float[Tensor, "q k"], rows: int, columns: int) -> Float[Tensor, "r c"]:
    """The ink of `rows` by `columns` cells: the root of each cell's mean size, with the sign of its sum.

    So small weights are seen, and so is a thin line where many pairs share a cell. Of a mask the strength is the mask.
    """
    level = pooled(strength.abs(), rows, columns).clamp(max=1).sqrt()
    return torch.where(pooled(strength, rows, columns) < 0, -level, level)


def heat(weights: Float[Tensor, "height width"], rows: int, columns: int) -> Float[Tensor, "r c"]:
    """Any weights, square or not, in `rows` by `columns` cells: the mean of each cell next to the largest one's."""
    level = pooled(weights, rows, columns)
    return level / level.amax().clamp(min=torch.finfo(level.dtype).tiny)


def pooled(level: Float[Tensor, "height width"], rows: int, columns: int) -> Float[Tensor, "r c"]:
    """The means of so many cells."""
    return level if level.shape == (rows, columns) else adaptive_avg_pool2d(level[None], (rows, columns))[0]


def cells(length: int, most: int) -> int:
    """How many cells a side of the picture gets: a divisor of the length if a large one is at most `most`."""
    if length <= most:
        return length
    divisor = max(side for side in range(1, most + 1) if length % side == 0)
    return divisor if divisor > most / 2 else most


def mix(level: float) -> tuple[int, int, int]:
    """The colour of a level of ink."""
    most = INK if level >= 0 else NEGATIVE
    red, green, blue = (round(paper + abs(level) * (full - paper)) for paper, full in zip(PAPER, most, strict=True))
    return red, green, blue

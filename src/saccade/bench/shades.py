"""A square of weights as a small square of ink between 0 and 1, which terminals and images draw alike."""

import torch
from torch.nn.functional import adaptive_avg_pool2d

from saccade.shapes import Float, Tensor

PAPER, INK = (238, 242, 247), (8, 64, 129)
"""The colours of no ink and full ink. Only the lightness tells them apart, so every eye can."""


def ink(weights: Float[Tensor, "n n"], rows: int, columns: int) -> Float[Tensor, "r c"]:
    """The weights in `rows` by `columns` cells: how dark each is to be.

    A cell's ink is the root of its mean, so that a thin line is still seen where many pairs share a cell. Weights
    that are all equal or zero in a row are a mask and count as 1 and 0.
    """
    seen = weights != 0
    per_row = weights.amax(-1, keepdim=True)
    is_mask = torch.allclose(weights, seen * per_row)
    level = seen.to(weights) if is_mask else weights / weights.amax().clamp(min=torch.finfo(weights.dtype).tiny)
    level = pooled(level, rows, columns)
    return level.sqrt() if is_mask else level


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
    red, green, blue = (round(paper + level * (full - paper)) for paper, full in zip(PAPER, INK, strict=True))
    return red, green, blue

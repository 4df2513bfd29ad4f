"""Sinusoids added to the input (Vaswani et al. 2017, section 3.5). Cost: O(n c) time, no parameter."""

import math

import torch

from saccade.nn.positions.position import Position
from saccade.shapes import Float, Tensor


def sinusoids(length: int, width: int, start: int = 0) -> Float[Tensor, "n c"]:
    """The position vectors `start .. start + length - 1` of "Attention Is All You Need", in float64.

    Channel `2i` is `sin(position / 10000^(2i / width))` and channel `2i + 1` the cosine of the same angle; an
    odd width ends on a sine.
    """
    position = torch.arange(start, start + length, dtype=torch.float64)
    pair = torch.arange(0, width, 2, dtype=torch.float64)
    angle = position[:, None] * torch.exp(pair * (-math.log(10_000) / width))
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :width]


class Sinusoidal(Position):
    """Sinusoids added to the input: no parameter, and any length works, whatever `max_length` says."""

    def __init__(self, width: int, max_length: int) -> None:
        super().__init__()
        self.width = width

    def on_input(self, x: Float[Tensor, "b n c"], start: int = 0) -> Float[Tensor, "b n c"]:
        """`x` plus the sinusoids of its positions, computed in float64 and rounded once."""
        return x + sinusoids(x.shape[1], self.width, start).to(x)

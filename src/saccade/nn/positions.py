"""How a Transformer learns where a token stands: one class a method, found by name in `POSITIONS`.

`sinusoidal` is Vaswani et al. (2017), section 3.5; `learned` is a table of one vector a position (Gehring et
al., 2017). Both cost O(n c) time and are added to the input.
"""

import math
from abc import ABC

import torch
from torch import nn

from saccade.errors import must_be
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


class Position(nn.Module, ABC):
    """What a position method may do to a model; each method overrides the hooks it needs.

    Every method is built as `Method(width, max_length)`, with the model width and the longest input that has
    to work.
    """

    def on_input(self, x: Float[Tensor, "b n c"], start: int = 0) -> Float[Tensor, "b n c"]:
        """The embedded tokens with their positions; `start` is the position of the first one."""
        return x


class Sinusoidal(Position):
    """Sinusoids added to the input: no parameter, and any length works, whatever `max_length` says."""

    def __init__(self, width: int, max_length: int) -> None:
        super().__init__()
        self.width = width

    def on_input(self, x: Float[Tensor, "b n c"], start: int = 0) -> Float[Tensor, "b n c"]:
        """`x` plus the sinusoids of its positions, computed in float64 and rounded once."""
        return x + sinusoids(x.shape[1], self.width, start).to(x)


class Learned(Position):
    """A learned vector a position, added to the input.

    Raises:
        ValueError: a position past the table.
    """

    def __init__(self, width: int, max_length: int) -> None:
        super().__init__()
        if max_length < 1:
            raise ValueError(must_be("max_length", "at least 1", max_length))
        # Small next to the tokens, so that training starts from what the tokens say.
        self.table = nn.Parameter(torch.randn(max_length, width) * 0.02)

    def on_input(self, x: Float[Tensor, "b n c"], start: int = 0) -> Float[Tensor, "b n c"]:
        """`x` plus the learned vectors of its positions."""
        end = start + x.shape[1]
        if end > len(self.table):
            constraint = f"at most {len(self.table)} (the learned position table)"
            raise ValueError(must_be("length", constraint, end))
        if torch.compiler.is_exporting():  # where a slice of everything would be another view than one of less
            return x + self.table.index_select(0, torch.arange(start, end, device=x.device))
        return x + self.table[start:end]


class NoPosition(Position):
    """No positions: the model sees a bag of tokens, unless the mechanism itself knows places."""

    def __init__(self, width: int, max_length: int) -> None:
        super().__init__()


POSITIONS: dict[str, type[Position]] = {
    "sinusoidal": Sinusoidal,
    "learned": Learned,
    "none": NoPosition,
}

"""A learned vector for each position (Gehring et al. 2017). Cost: O(n c) time, `max_length` times c parameters."""

import torch
from torch import nn

from saccade.errors import must_be
from saccade.nn.positions.position import Position
from saccade.shapes import Float, Tensor


class Learned(Position):
    """A learned vector for each position, added to the input.

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

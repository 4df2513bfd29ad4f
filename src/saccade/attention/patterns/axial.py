"""Axial attention: along the row and along the column of a grid.

Source: axial attention (Ho et al. 2019), both axes in one layer.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from saccade.attention.patterns.pattern import Pairs, Pattern, Scope
from saccade.errors import whole_number
from saccade.shapes import Bool, Int


@dataclass(frozen=True, repr=False)
class Axial(Pattern):
    """A query sees the cells of its own row and of its own column.

    Positions past the last cell see nothing, and nobody sees them.

    Attributes:
        height: rows of the grid.
        width: columns of the grid; position `row * width + column` is a cell.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse what is no grid."""
        for name in ("height", "width"):
            whole_number(name, getattr(self, name))

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """Whether both stand in one row or in one column."""
        rows, columns = self.parts()
        return rows.sees(scope, at) | columns.sees(scope, at)

    def parts(self) -> "tuple[Pattern, Pattern]":
        """Rows, and columns."""
        return _Lines(self.height, self.width, "rows"), _Lines(self.height, self.width, "columns")

    def __repr__(self) -> str:
        return f"Axial({self.height}, {self.width})"


@dataclass(frozen=True)
class _Lines(Pattern):
    """All rows or all columns of a grid: a query sees its own."""

    height: int
    width: int
    axis: Literal["rows", "columns"]

    def labels(
        self, scope: Scope, b: Int[Tensor, "..."], h: Int[Tensor, "..."], position: Int[Tensor, "..."]
    ) -> Int[Tensor, "..."]:
        """The number of the line."""
        line = position // self.width if self.axis == "rows" else position % self.width
        return torch.where(position < self.height * self.width, line, -1)

    @property
    def labelled(self) -> bool:
        """Always."""
        return True

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """Whether both stand in one line."""
        query, key = self.labels(scope, at.b, at.h, at.q), self.labels(scope, at.b, at.h, at.k)
        return (query == key) & (query >= 0)

    def reach(self, scope: Scope) -> tuple[int | float, int | float]:
        """From one end of a line to the other."""
        reach = self.width - 1 if self.axis == "rows" else (self.height - 1) * self.width
        return reach, reach

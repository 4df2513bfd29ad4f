"""Neighbourhoods on a grid, such as the pixels or patches of an image, row after row.

Source: neighborhood attention (Hassani et al. 2023); here the window is cut off at the border, not moved inwards.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from saccade.attention.patterns.pattern import Pairs, Pattern, Scope
from saccade.errors import whole_number
from saccade.shapes import Bool, Int


@dataclass(frozen=True, repr=False)
class Grid(Pattern):
    """A query sees the cells at most `radius` rows and columns away, itself included.

    Positions past the last cell see nothing, and nobody sees them.

    Attributes:
        height: rows of the grid.
        width: columns of the grid; position `row * width + column` is a cell.
        radius: how far a query sees, in rows and in columns.
    """

    height: int
    width: int
    radius: int

    def __post_init__(self) -> None:
        """Refuse what is no grid."""
        for name, least in (("height", 1), ("width", 1), ("radius", 0)):
            whole_number(name, getattr(self, name), least)

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """Whether rows and columns are near enough."""
        inside = (at.q < self.height * self.width) & (at.k < self.height * self.width)
        rows = (at.q // self.width - at.k // self.width).abs() <= self.radius
        return inside & rows & ((at.q % self.width - at.k % self.width).abs() <= self.radius)

    def spans(self, scope: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """One range for each row of the neighbourhood; one for all of them where rows are shorter than tiles."""
        reach = min(self.radius, self.height - 1) * self.width
        first, last = rows * size - self.radius, rows * size + size - 1 + self.radius
        if self.width <= size:
            return torch.stack([(first - reach) // size, (last + reach) // size + 1], dim=-1)[None, None, :, None]
        jumps = torch.arange(-reach, reach + 1, self.width)
        low, high = (first[:, None] + jumps) // size, (last[:, None] + jumps) // size + 1
        return torch.stack([low, high], dim=-1)[None, None]

    def tile_keys(self, scope: Scope, size: int, tiles: Pairs) -> Int[Tensor, "t m"]:
        """The place of the query tile in its row, the distance of the tiles, and the end of the grid."""
        end = self.height * self.width
        ends = [torch.where((side + 1) * size > end, side, -1) for side in (tiles.q, tiles.k)]
        return torch.stack([tiles.q * size % self.width, tiles.k - tiles.q, *ends], dim=1)

    def reach(self, scope: Scope) -> tuple[int | float, int | float]:
        """To the far corner of the neighbourhood."""
        reach = self.radius * (self.width + 1)
        return reach, reach

    def __repr__(self) -> str:
        return f"Grid({self.height}, {self.width}, {self.radius})"

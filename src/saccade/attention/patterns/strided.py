"""Strided attention: keys a whole number of strides away.

Source: Sparse Transformer (Child et al. 2019), second head of the strided kind.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from saccade.attention.patterns.pattern import Pairs, Pattern, Scope
from saccade.errors import must_be, whole_number
from saccade.shapes import Bool, Int


@dataclass(frozen=True, repr=False)
class Strided(Pattern):
    """Query i sees keys a multiple of `stride` away, itself included.

    Attributes:
        stride: distance between the keys that are seen.
        steps: how many strides it reaches to each side, all if not given: `steps=1` is {i - stride, i, i + stride}.
    """

    stride: int
    steps: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no stride."""
        whole_number("stride", self.stride)
        if self.steps is not None and (type(self.steps) is not int or self.steps < 0):
            raise ValueError(must_be("steps", "a whole number, at least 0, or None", self.steps))

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """Whether the distance is a multiple of the stride, and not too many of them."""
        distance = at.k - at.q
        seen = distance % self.stride == 0
        return seen if self.steps is None else seen & (distance.abs() <= self.steps * self.stride)

    def spans(self, scope: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """One range for each stride, or one for all where strides are no longer than tiles."""
        first, last = rows * size, rows * size + size - 1
        if self.stride <= size:
            reach = max(scope.n_k, scope.q_start + scope.n_q)
            reach = reach if self.steps is None else min(reach, self.steps * self.stride)
            span = torch.stack([(first - reach) // size, (last + reach) // size + 1], dim=-1)
            return span[None, None, :, None]
        furthest = -(-max(scope.n_k, scope.q_start + scope.n_q) // self.stride)
        furthest = furthest if self.steps is None else min(furthest, self.steps)
        jumps = torch.arange(-furthest, furthest + 1) * self.stride
        low, high = (first[:, None] + jumps) // size, (last[:, None] + jumps) // size + 1
        return torch.stack([low, high], dim=-1)[None, None]

    def tile_keys(self, scope: Scope, size: int, tiles: Pairs) -> Int[Tensor, "t m"]:
        """Only the distance between the tiles matters; without a limit only its place in the stride."""
        distance = (tiles.k - tiles.q) * size
        return (distance % self.stride if self.steps is None else distance)[:, None]

    def labels(
        self, scope: Scope, b: Int[Tensor, "..."], h: Int[Tensor, "..."], position: Int[Tensor, "..."]
    ) -> Int[Tensor, "..."]:
        """The place within the stride."""
        return position % self.stride

    @property
    def labelled(self) -> bool:
        """Always."""
        return True

    def reach(self, scope: Scope) -> tuple[int | float, int | float]:
        """So many strides."""
        reach = math.inf if self.steps is None else self.steps * self.stride
        return reach, reach

    @property
    def by_distance(self) -> bool:
        """Always."""
        return True

    def __repr__(self) -> str:
        return f"Strided({self.stride})" if self.steps is None else f"Strided({self.stride}, steps={self.steps})"

"""Segments: several sequences packed into one, each of which sees only itself.

Source: packed training batches, as in T5 (Raffel et al. 2020); FlexAttention's document mask (Dong et al. 2024).
"""

import torch
from torch import Tensor

from saccade.attention.patterns.carried import CarriesTensor
from saccade.attention.patterns.pattern import Pairs, Scope
from saccade.errors import must_be
from saccade.shapes import Bool, Int


class Segments(CarriesTensor):
    """A query sees the keys of its own segment, wherever they stand.

    Args:
        ids: the segment of each position, `[n]`, or `[b n]` where examples differ. Positions with a negative number
            belong to none: they see nothing and nobody sees them.

    Raises:
        TypeError: no tensor of integers.
        ValueError: another shape.
    """

    def __init__(self, ids: Int[Tensor, "*b n"]) -> None:
        super().__init__("ids", ids)
        if ids.ndim not in (1, 2):
            raise ValueError(must_be("ids", "of shape [n] or [b n]", tuple(ids.shape)))
        rows = self.tensor[0] if ids.ndim == 2 and len(ids) == 1 else self.tensor
        numbers = torch.unique(rows, return_inverse=True)[1]  # small ones: ids may be as large as hashes are
        object.__setattr__(self, "_numbers", numbers.masked_fill(rows < 0, -1))

    _numbers: Int[Tensor, "*b n"]

    @property
    def ids(self) -> Int[Tensor, "*b n"]:
        """The segment of each position."""
        return self.tensor

    def labels(
        self, scope: Scope, b: Int[Tensor, "..."], h: Int[Tensor, "..."], position: Int[Tensor, "..."]
    ) -> Int[Tensor, "..."]:
        """A number for the segment."""
        if scope.end > self.ids.shape[-1]:
            raise ValueError(must_be("ids", f"as long as the sequence, {scope.end}", self.ids.shape[-1]))
        numbers = self._numbers.to(position.device)
        return numbers[position] if numbers.ndim == 1 else numbers[b, position]

    @property
    def labelled(self) -> bool:
        """Always."""
        return True

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """Whether both stand in the same segment."""
        inside = (at.q < scope.end) & (at.k < scope.end)
        q, k = (position.clamp(max=scope.end - 1) for position in (at.q, at.k))
        query, key = self.labels(scope, at.b, at.h, q), self.labels(scope, at.b, at.h, k)
        return inside & (query == key) & (query >= 0)

    def spans(self, scope: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """All key tiles, said for each example that is told apart."""
        return super().spans(scope, rows, size).expand(self.examples or 1, -1, -1, -1, -1)

    @property
    def examples(self) -> int | None:
        """As many as there are rows of numbers."""
        return self.ids.shape[0] if self.ids.ndim == 2 and self.ids.shape[0] > 1 else None

"""Rows of different lengths, one behind the other in a single tensor: nothing is padded before a batch needs it.

Memory: two or four bytes a number and eight a row; a tuple of tensors would take some hundred bytes a row. A batch is
made by one gather, without a loop over its rows.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from saccade.errors import must_be
from saccade.shapes import Bool, Int, Tensor


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of whole numbers.

    Attributes:
        values: all rows, one behind the other.
        ends: where each row ends in `values`, int64.

    Raises:
        ValueError: if the ends are not in order, or the last one is not the end of the values.
    """

    values: Int[Tensor, " values"]
    ends: Int[Tensor, " rows"]

    def __post_init__(self) -> None:
        """Refuse ends that cut the values differently."""
        last = int(self.ends[-1]) if len(self.ends) else 0
        if last != len(self.values) or bool((self.lengths < 0).any()):
            raise ValueError(must_be("ends", f"in order, up to {len(self.values)}", self.ends.tolist()))

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]], dtype: torch.dtype = torch.int64) -> "Ragged":
        """The rows of anything that yields them; only the numbers are kept."""
        values, ends = array("q"), array("q")
        for row in rows:
            values.extend(row)
            ends.append(len(values))
        return cls(_tensor(values).to(dtype), _tensor(ends))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> Int[Tensor, " _"]:
        """One row, not copied."""
        row = range(len(self))[row]
        return self.values[self.ends[row - 1] if row else 0 : self.ends[row]]

    @property
    def lengths(self) -> Int[Tensor, " rows"]:
        """How long each row is."""
        return self.ends.diff(prepend=self.ends.new_zeros(1))

    def places(self, rows: Int[Tensor, " b"]) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
        """Where the numbers of some rows stand in `values`, and which of these places are real.

        Returns:
            The places, 0 behind the end of a shorter row, and the mask that is True at a real one.
        """
        lengths = self.lengths[rows]
        longest = int(lengths.max()) if len(rows) else 0
        steps = torch.arange(longest)
        mask = steps < lengths[:, None]
        return ((self.ends[rows] - lengths)[:, None] + steps).masked_fill(~mask, 0), mask

    def padded(self, rows: Int[Tensor, " b"], fill: int) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
        """Some rows side by side, int64, `fill` behind the end of a shorter one; and the mask of what is real."""
        places, mask = self.places(rows)
        if not len(self.values):
            return torch.full(mask.shape, fill), mask
        return self.values[places].long().masked_fill(~mask, fill), mask

    def kept(self, rows: Bool[Tensor, " rows"]) -> "Ragged":
        """Only the rows where the mask is True."""
        return Ragged(self.values[rows.repeat_interleave(self.lengths)], self.lengths[rows].cumsum(0))

    @classmethod
    def joined(cls, parts: Sequence["Ragged"]) -> "Ragged":
        """The rows of several, one behind the other; of none, no rows."""
        if not parts:
            return cls.of([])
        return cls(torch.cat([part.values for part in parts]), torch.cat([part.lengths for part in parts]).cumsum(0))

    def framed(self, first: Int[Tensor, "rows p"], last: Int[Tensor, "rows s"]) -> "Ragged":
        """The same rows, each with numbers of its own before and behind it."""
        before, more = first.shape[1], first.shape[1] + last.shape[1]
        ends = self.ends + more * torch.arange(1, len(self) + 1)
        row_of = torch.repeat_interleave(torch.arange(len(self)), self.lengths)
        values = self.values.new_zeros(len(self.values) + more * len(self))
        values[torch.arange(len(self.values)) + row_of * more + before] = self.values
        starts = ends - self.lengths - more
        values[starts[:, None] + torch.arange(before)] = first.to(values.dtype)
        values[(ends - last.shape[1])[:, None] + torch.arange(last.shape[1])] = last.to(values.dtype)
        return Ragged(values, ends)


def id_dtype(size: int) -> torch.dtype:
    """The smallest type that holds the ids of a vocabulary of this size."""
    return torch.int16 if size <= 2**15 else torch.int32


def _tensor(numbers: "array[int]") -> Int[Tensor, " _"]:
    """The numbers of an array; torch refuses a buffer of none."""
    return torch.frombuffer(numbers, dtype=torch.int64) if numbers else torch.zeros(0, dtype=torch.int64)

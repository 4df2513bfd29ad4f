"""Vectors of positions each of which follows from the one before it, added to the input.

Those of the last position need all before them. Where they get gradients, all are made anew in each call; else they
are kept for as long as the parameters stay what they are, so that a decoding step does not begin at 0 again.
"""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from saccade.nn.positions.position import Position
from saccade.shapes import Float


class _Known(NamedTuple):
    """What was made, and a copy of the parameters it was made from."""

    vectors: Tensor
    parameters: tuple[Tensor, ...]


class OneAfterAnother(Position):
    """A method whose vectors follow from each other; the first ones never depend on how many there are."""

    def __init__(self) -> None:
        super().__init__()
        self._known: _Known | None = None

    @abstractmethod
    def vectors(self, length: int) -> Float[Tensor, "n c"]:
        """Those of the positions `0 .. length - 1`; `length` is at least 1."""

    def on_input(self, x: Float[Tensor, "b n c"], start: int = 0) -> Float[Tensor, "b n c"]:
        """`x` plus the vectors of its positions."""
        if x.shape[1] == 0:
            return x
        return x + self._up_to(start + x.shape[1])[start:].to(x.dtype)

    def _up_to(self, end: int) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.vectors(end)
        known = self._known
        if known is None or not _equal(known.parameters, tuple(self.parameters())):
            known = None
        if known is None or len(known.vectors) < end:
            # Twice as many as before, so that each is made about twice however many steps there are.
            length = end if known is None else max(end, 2 * len(known.vectors))
            known = _Known(self.vectors(length), tuple(each.detach().clone() for each in self.parameters()))
            self._known = known
        return known.vectors[:end]

    def __getstate__(self) -> dict[str, object]:
        """Without what can be made again."""
        return {**self.__dict__, "_known": None}


def _equal(old: tuple[Tensor, ...], new: tuple[Tensor, ...]) -> bool:
    """Whether parameters are the same numbers, in the same dtype and place."""
    pairs = list(zip(old, new, strict=True))
    same = all(a.dtype == b.dtype and a.device == b.device and a.shape == b.shape for a, b in pairs)
    return same and all(torch.equal(a, b) for a, b in pairs)

"""What a caller wants to know of a forward pass besides its output, handed down through the model as `record=`."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy

import torch

from saccade.errors import must_be, unknown
from saccade.shapes import Tensor

RECORDABLE = ("weights", "losses", "counts")
"""What can be asked for.

`weights`: one `[b h q k]` for each attention layer. `losses`: what a mechanism wants training to make small
besides the task's loss, each a number that is already multiplied by its factor. `counts`: how a mechanism has shared
out the tokens, in its own terms.
"""

_AGAIN = ContextVar("again", default=False)


@contextmanager
def computed_again() -> Iterator[None]:
    """While entered, a forward pass does again what it did before, so that nothing is noted twice."""
    token = _AGAIN.set(True)
    try:
        yield
    finally:
        _AGAIN.reset(token)


def is_computed_again() -> bool:
    """Whether a layer must not take notes of its inputs, as it has taken them before."""
    # What is compiled cannot look, and is never told.
    return not torch.compiler.is_compiling() and _AGAIN.get()


class Record:
    """Collects values by name during a forward pass, one a layer, in the order in which the layers are called.

    ```python
    record = Record("weights")
    encoder(x, key_mask, record=record)
    record["weights"][1]  # the weights of layer 1
    ```

    In a model of several parts each part has a place, and what was collected there is found there:

    ```python
    transformer(source, target, record=record)
    record.at("decoder").at("cross")["weights"][1]  # of layer 1 of the decoder, across
    ```

    A record is for one forward pass: in a second one its lists grow on.

    Args:
        names: what to collect, of `RECORDABLE`; nothing else is computed.

    Raises:
        ValueError: nothing is asked for, or something unknown.
    """

    def __init__(self, *names: str) -> None:
        if not names:
            raise ValueError(must_be("names", f"one or more of {', '.join(RECORDABLE)}", names))
        for name in names:
            if name not in RECORDABLE:
                raise ValueError(unknown("name", name, RECORDABLE))
        self._place: tuple[str, ...] = ()
        self._values: dict[str, list[tuple[tuple[str, ...], Tensor]]] = {name: [] for name in names}

    def __contains__(self, name: str) -> bool:
        """Whether `name` is asked for, so that whoever has it may spare the work."""
        return name in self._values

    def __getitem__(self, name: str) -> list[Tensor]:
        """What was collected under `name`, at this place and below it.

        Raises:
            ValueError: it was not asked for.
        """
        if name not in self._values:
            raise ValueError(unknown("name", name, self._values))
        depth = len(self._place)
        return [value for place, value in self._values[name] if place[:depth] == self._place]

    def at(self, part: str) -> "Record":
        """The same record, seen from a part of the model: what is added there is found there, and here.

        Args:
            part: `encoder` and `decoder` in a Transformer; `self` and `cross` in a decoder.
        """
        below = copy(self)
        below._place = (*self._place, part)
        return below

    def add(self, name: str, value: Tensor) -> None:
        """Keep what a layer has to tell under `name`, if that is asked for."""
        if name in self._values and not is_computed_again():
            self._values[name].append((self._place, value))

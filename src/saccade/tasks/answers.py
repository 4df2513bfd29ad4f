"""Answers of a trained model to lines of text: one line in, one line out, in order, however many there are.

A task says how its models answer (`Task.generate`, `Task.predict`); here stands what all of that have in common. Memory
does not grow with the number of lines: a chunk of them is read, answered in whatever batches suit, and handed on.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch

from saccade.attention.expressions import read
from saccade.attention.seeds import hashed
from saccade.data.lines import at
from saccade.errors import must_be, whole_number
from saccade.generation import METHODS, Method
from saccade.shapes import Int, Tensor

CHUNK = 256
"""Lines that are held at once: enough to find some of like length for a batch."""


class Line(NamedTuple):
    """One line of what is asked.

    Attributes:
        number: counted from 1.
        text: without its end.
        where: the file and the number, for messages.
    """

    number: int
    text: str
    where: str


Answer = Callable[[Sequence[Line]], Sequence[str]]
"""The answers to some lines, one each, in order; `ValueError`, with the place, where a line cannot be answered."""


@dataclass(frozen=True)
class GenerateOptions:
    """How to generate.

    Attributes:
        method: how to decode, such as `beam(width=5)` or `sampling(temperature=0.8)`; the recipe's own if not given.
        to: which side to write, where a model writes several, such as a language.
        seed: of what is drawn. A line draws the same wherever it stands in a batch.

    Raises:
        ValueError: a seed below 0.
    """

    method: str | None = None
    to: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        whole_number("seed", self.seed, 0)


def to_method(text: str) -> Method:
    """The decoding method, of one result, that a text describes, such as `beam(width=5, length_penalty=0.6)`.

    Raises:
        ValueError: an unknown method or option, one that is refused, or more than one result for a line.
    """
    method = read(text, METHODS, "method")
    if not isinstance(method, Method):
        raise ValueError(must_be("method", "a call such as beam(width=5)", text))
    if (results := getattr(method, "results", 1)) != 1:
        raise ValueError(must_be("results", "1: a line gets one answer", results))
    return method


def refuse_ratio(method: Method) -> None:
    """Refuse a limit that counts tokens of a source, where there is no source.

    Raises:
        ValueError: `max_ratio` is not 0.
    """
    if ratio := getattr(method, "max_ratio", 0):
        raise ValueError(must_be("max_ratio", "0 for a language model, which has no source", ratio))


def numbered(texts: Iterable[str], name: str) -> Iterator[Line]:
    """The lines of a text that is called `name`."""
    return (Line(number, text, at(name, number)) for number, text in enumerate(texts, start=1))


def seeds_of(lines: Sequence[Line], seed: int) -> Int[Tensor, " b"]:
    """A seed for each line, the same wherever it stands in a batch."""
    return hashed(seed, torch.tensor([line.number for line in lines], dtype=torch.long))


def answered(lines: Iterable[Line], answer: Answer, chunk: int = CHUNK) -> Iterator[str]:
    """The answers to all lines, in order, while they are read.

    Raises:
        ValueError: a line cannot be answered, or `answer` gave another number of answers.
    """
    rest = iter(lines)
    while some := list(islice(rest, chunk)):
        found = answer(some)
        if len(found) != len(some):
            raise ValueError(must_be("answers", f"one for each of the {len(some)} lines", len(found)))
        yield from found


def refuse_longer(lines: Sequence[Line], lengths: Int[Tensor, " b"], limit: int) -> None:
    """Refuse a line of more tokens than a model can read.

    Args:
        lines: what is asked.
        lengths: the tokens of each.
        limit: the most that it may have.

    Raises:
        ValueError: the message says which line it is.
    """
    for line, length in zip(lines, lengths.tolist(), strict=True):
        if length > limit:
            constraint = f"of at most {max(limit, 0)} tokens, for which the model has positions"
            raise ValueError(f"{line.where}: {must_be('line', constraint, length)}")

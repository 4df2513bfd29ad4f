"""Texts and what they become, one pair after the other: aligned files with a line for a line, or columns of a table.

Files may be packed (.gz). They are read side by side and line by line; nothing is held.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from saccade.data.files import read_records
from saccade.data.lines import at, read_texts
from saccade.data.rows import check_columns
from saccade.errors import must_be

SIDE = "{}"


@dataclass(frozen=True)
class Pair:
    """One example.

    Attributes:
        source: what is read.
        target: what is to be written.
        side: the language or column of the target.
        where: the place, for messages: `"train.tsv, line 12"`.
    """

    source: str
    target: str
    side: str
    where: str


def read_pairs(source: str, read: str, write: tuple[str, ...]) -> Iterator[Pair]:
    """The pairs of a table, or of files whose names differ by the language.

    Args:
        source: a table (.tsv, .csv, .jsonl), or the name of line files with `{}` for the language.
        read: the column or language of the sources.
        write: those of the targets; each row makes a pair with each of them.

    Raises:
        ValueError: if one file has more lines than another (with the place), a table lacks a column or is ragged, or a
            file is no UTF-8.
        OSError: if a file cannot be read.
    """
    return _aligned(source, (read, *write)) if SIDE in source else _table(source, read, write)


def _aligned(pattern: str, sides: tuple[str, ...]) -> Iterator[Pair]:
    """Line i of each file is the same text."""
    paths = [Path(pattern.replace(SIDE, side)).expanduser() for side in sides]
    for number, texts in enumerate(zip_longest(*map(read_texts, paths)), start=1):
        _refuse_short(paths, texts, number)
        for side, path, target in zip(sides[1:], paths[1:], texts[1:], strict=True):
            yield Pair(texts[0], target, side, at(path, number))


def _refuse_short(paths: list[Path], texts: tuple[str | None, ...], number: int) -> None:
    ended = [path for path, text in zip(paths, texts, strict=True) if text is None]
    if ended:
        longer = next(path for path in paths if path not in ended)
        lines = sum(1 for _ in read_texts(longer))
        raise ValueError(
            f"{at(ended[0], number)}: {must_be('the file', f'{lines:,} lines long like {longer}', number - 1)}"
        )


def _table(source: str, read: str, write: tuple[str, ...]) -> Iterator[Pair]:
    """Columns of a table, by the ending of its name."""

    def check(there: Iterable[str], where: str) -> None:
        names = list(there)
        check_columns({"read": read}, names, where)
        for side in write:
            check_columns({"write": side}, names, where)

    for where, record in read_records(source, check):
        for side in write:
            yield Pair(_text(record[read], read, where), _text(record[side], side, where), side, where)


def _text(value: object, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: {must_be(column, 'a text', value)}")
    # JSON can escape one half of a surrogate pair, which is no character.
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{where}: {must_be(column, 'made of characters', value)}")
    return value

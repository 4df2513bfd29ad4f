"""A row of somebody's data, checked: a text, a label and where both were read."""

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from saccade.errors import must_be, unknown


@dataclass(frozen=True)
class Columns:
    """The names of the two columns that are read; a table may have more.

    Attributes:
        text: the column (or JSON key) of the text.
        label: the column (or JSON key) of the label.
    """

    text: str
    label: str

    def check(self, there: Iterable[str], where: str) -> None:
        """Refuse a table without them.

        Raises:
            ValueError: naming the place, the column and those that are there.
        """
        check_columns({"text_column": self.text, "label_column": self.label}, there, where)


def check_columns(wanted: Mapping[str, str], there: Iterable[str], where: str) -> None:
    """Refuse a table in which a column is not there, or there twice.

    Args:
        wanted: the option that names each column, and the name.
        there: the columns of the table.
        where: the place, for messages.

    Raises:
        ValueError: naming the place, the option, the column and those that are there.
    """
    names = list(there)
    for option, name in wanted.items():
        if name not in names:
            raise ValueError(f"{where}: {unknown(option, name, names)}")
        if names.count(name) > 1:
            raise ValueError(f"{where}: {must_be(option, 'a column that is there once', name)}")


@dataclass(frozen=True)
class Row:
    """One example.

    Attributes:
        text: its UTF-8, at least one byte.
        label: its class, without white space around it.
        where: the place, for messages: `"reviews.csv, line 12"`.
    """

    text: bytes
    label: str
    where: str


def read_row(record: Mapping[str, object], columns: Columns, where: str) -> Row:
    """The row of a record whose columns were checked.

    Raises:
        ValueError: if the text is no text or empty, or the label is neither a word nor a whole number.
    """
    return Row(_text(record[columns.text], where), _label(record[columns.label], where), where)


def _text(value: object, where: str) -> bytes:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}: text must be a string that is not empty, got {reprlib.repr(value)}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        # JSON can escape one half of a surrogate pair, which is no character.
        raise ValueError(f"{where}: {must_be('text', 'made of characters', value[error.start])}") from None


def _label(value: object, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        got = reprlib.repr(value)
        raise ValueError(f"{where}: label must be a whole number or a string that is not empty, got {got}")
    return str(value).strip()

"""The user's own files: JSON Lines, CSV and TSV, plain or packed with gzip, in UTF-8.

Whatever is wrong with a file, the error says where: the file, the line, the column or the byte. Lines count from
1 and bytes from 0; a CSV row whose quoted text spans several lines stands where it begins. TSV has no quotes
(IANA's `text/tab-separated-values`): a line is a row and every tab a border.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from saccade.data.lines import at, read_lines, read_texts
from saccade.data.rows import Columns, Row, read_row
from saccade.errors import must_be

# The most that `csv` takes on every system; its default of 128 KiB is less than a long document.
LARGEST_FIELD = 2**31 - 1

Records = Iterator[tuple[int, dict[str, object]]]
Check = Callable[[Iterable[str], str], None]


def read_rows(source: str, columns: Columns) -> list[Row]:
    """All rows of a file, by the ending of its name.

    Raises:
        ValueError: if the ending is none of `ENDINGS`, or the content is not as the ending promises.
        OSError: if there is no such file, it is a folder, or it may not be read (the subclass that fits).
    """
    rows = [read_row(record, columns, where) for where, record in read_records(source, columns.check)]
    if not rows:
        raise ValueError(must_be(str(Path(source).expanduser()), "a file with rows in it", "none"))
    return rows


def read_records(source: str, check: Check) -> Iterator[tuple[str, dict[str, object]]]:
    """The rows of a file as they stand, one after the other, with the place of each: `"a.tsv, line 3"`.

    Args:
        source: the file.
        check: refuses a table by its columns; it is told their names and the place.

    Raises:
        ValueError, OSError: as `read_rows`.
    """
    if not is_file_name(source):
        raise ValueError(must_be("data file", f"a name that ends in {', '.join(ENDINGS)} (or these with .gz)", source))
    path = Path(source).expanduser()
    return ((at(path, line), record) for line, record in ENDINGS[_ending(source)](path, check))


def is_file_name(source: str) -> bool:
    """Whether a name ends like a file that can be read here."""
    return _ending(source) in ENDINGS


def _ending(source: str) -> str:
    return Path(source.lower().removesuffix(".gz")).suffix


def _json_lines(path: Path, check: Check) -> Records:
    """One JSON object a line; empty lines are passed over."""
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            record = _json_object(line, at(path, number))
            check(record, at(path, number))
            yield number, record


def _json_object(line: str, where: str) -> dict[str, object]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: the line must be JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: the line must be JSON that Python can hold: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{where}: {must_be('the line', 'one JSON object', type(record).__name__)}")
    return record


def _csv(path: Path, check: Check) -> Records:
    """A header and rows, with commas and double quotes (RFC 4180)."""
    before = csv.field_size_limit(LARGEST_FIELD)
    try:
        yield from _table(_csv_fields(path), path, check)
    finally:
        csv.field_size_limit(before)


def _csv_fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(read_lines(path), strict=True)
    while True:
        begin = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{at(path, begin)}: the row must be CSV: {error}") from None
        if fields is None:
            return
        yield begin, fields


def _tsv(path: Path, check: Check) -> Records:
    """A header and rows, with tabs and no quotes."""
    lines = enumerate(read_texts(path), start=1)
    return _table(((i, line.split("\t") if line else []) for i, line in lines), path, check)


def _table(table: Iterator[tuple[int, list[str]]], path: Path, check: Check) -> Records:
    """Rows with the names of the header; empty lines are passed over."""
    header: list[str] = []
    for line, fields in table:
        if not fields:
            continue
        if not header:
            header = fields
            check(header, at(path, line))
        elif len(fields) != len(header):
            columns_got = must_be("the row", f"{len(header)} columns wide like the header", len(fields))
            raise ValueError(f"{at(path, line)}: {columns_got}")
        else:
            yield line, dict(zip(header, fields, strict=True))


ENDINGS: dict[str, Callable[[Path, Check], Records]] = {
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".csv": _csv,
    ".tsv": _tsv,
}

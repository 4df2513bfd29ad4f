"""The user's own files: JSON Lines, CSV and TSV, plain or packed with gzip, in UTF-8.

Whatever is wrong with a file, the error says where: the file, the line, the column or the byte. Lines count from
1 and bytes from 0; a CSV row whose quoted text spans several lines stands where it begins. TSV has no quotes
(IANA's `text/tab-separated-values`): a line is a row and every tab a border.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from saccade.data.rows import Columns, Row, read_row
from saccade.errors import must_be

# The most that `csv` takes on every system; its default of 128 KiB is less than a long document.
LARGEST_FIELD = 2**31 - 1

Records = Iterator[tuple[int, dict[str, object]]]


def read_rows(source: str, columns: Columns) -> list[Row]:
    """All rows of a file, by the ending of its name.

    Raises:
        ValueError: if the ending is none of `ENDINGS`, or the content is not as the ending promises.
        OSError: if there is no such file, it is a folder, or it may not be read (the subclass that fits).
    """
    if not is_file_name(source):
        raise ValueError(must_be("data file", f"a name that ends in {', '.join(ENDINGS)} (or these with .gz)", source))
    path = Path(source).expanduser()
    read = ENDINGS[_ending(source)]
    rows = [read_row(record, columns, _at(path, line)) for line, record in read(path, columns)]
    if not rows:
        raise ValueError(must_be(str(path), "a file with rows in it", "none"))
    return rows


def is_file_name(source: str) -> bool:
    """Whether a name ends like a file that can be read here."""
    return _ending(source) in ENDINGS


def _ending(source: str) -> str:
    return Path(source.lower().removesuffix(".gz")).suffix


def _at(path: Path, line: int) -> str:
    return f"{path}, line {line}"


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file with their ends, without a byte order mark."""
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    offset = 0
    try:
        with opener(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                yield _decode(line, number, offset, path)
                offset += len(line)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} must be a whole gzip file: {error}") from None
    except OSError as error:
        raise type(error)(f"{path} must be a file that can be read: {error.strerror or error}") from None


def _decode(line: bytes, number: int, offset: int, path: Path) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        # The decoder counts from behind the byte order mark.
        start = error.start + len(line) - len(error.object)
        bad = f"byte 0x{line[start]:02x} at offset {offset + start:,} of the file"
        raise ValueError(f"{_at(path, number)}: the file must be UTF-8, got {bad}") from None


def _json_lines(path: Path, columns: Columns) -> Records:
    """One JSON object a line; empty lines are passed over."""
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            record = _json_object(line, _at(path, number))
            columns.check(record, _at(path, number))
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


def _csv(path: Path, columns: Columns) -> Records:
    """A header and rows, with commas and double quotes (RFC 4180)."""
    before = csv.field_size_limit(LARGEST_FIELD)
    try:
        yield from _table(_csv_fields(path), path, columns)
    finally:
        csv.field_size_limit(before)


def _csv_fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(_lines(path), strict=True)
    while True:
        begin = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{_at(path, begin)}: the row must be CSV: {error}") from None
        if fields is None:
            return
        yield begin, fields


def _tsv(path: Path, columns: Columns) -> Records:
    """A header and rows, with tabs and no quotes."""
    lines = (line.rstrip("\r\n") for line in _lines(path))
    return _table(((i, line.split("\t") if line else []) for i, line in enumerate(lines, start=1)), path, columns)


def _table(table: Iterator[tuple[int, list[str]]], path: Path, columns: Columns) -> Records:
    """Rows with the names of the header; empty lines are passed over."""
    header: list[str] = []
    for line, fields in table:
        if not fields:
            continue
        if not header:
            header = fields
            columns.check(header, _at(path, line))
        elif len(fields) != len(header):
            columns_got = must_be("the row", f"{len(header)} columns wide like the header", len(fields))
            raise ValueError(f"{_at(path, line)}: {columns_got}")
        else:
            yield line, dict(zip(header, fields, strict=True))


ENDINGS: dict[str, Callable[[Path, Columns], Records]] = {
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".csv": _csv,
    ".tsv": _tsv,
}

"""Lines of UTF-8 files, plain or packed with gzip, one after the other: no file is ever held in memory as a whole.

Only a line feed ends a line, so that aligned files stay aligned: other signs that Unicode calls line ends are text.
Whatever is wrong, the error says where. Lines count from 1 and bytes from 0.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path


def at(path: Path | str, line: int) -> str:
    """A place in a file, as all messages write it: `"reviews.csv, line 12"`."""
    return f"{path}, line {line}"


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a file with their ends, without a byte order mark.

    Raises:
        ValueError: if the file is no UTF-8, with the line and the byte, or no whole gzip file.
        OSError: if there is no such file, it is a folder, or it may not be read (the subclass that fits).
    """
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rb") as file:
            yield from decoded(file, path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} must be a whole gzip file: {error}") from None
    except OSError as error:
        raise type(error)(f"{path} must be a file that can be read: {error.strerror or error}") from None


def decoded(lines: Iterable[bytes], name: Path | str) -> Iterator[str]:
    """The lines of what is called `name`, from their UTF-8, without a byte order mark; they keep their ends.

    Raises:
        ValueError: one is no UTF-8; the message says which, and the byte.
    """
    offset = 0
    for number, line in enumerate(lines, start=1):
        yield _decode(line, number, offset, name)
        offset += len(line)


def read_texts(path: Path) -> Iterator[str]:
    """The lines of a file without their ends; errors as `read_lines`."""
    return (line.rstrip("\r\n") for line in read_lines(path))


def _decode(line: bytes, number: int, offset: int, path: Path | str) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        # The decoder counts from behind the byte order mark.
        start = error.start + len(line) - len(error.object)
        bad = f"byte 0x{line[start]:02x} at offset {offset + start:,} of the file"
        raise ValueError(f"{at(path, number)}: the file must be UTF-8, got {bad}") from None

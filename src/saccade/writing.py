"""What every command that writes keeps to: nothing is overwritten, and no file is half written."""

import os
from pathlib import Path


def refuse_existing(folder: Path, advice: str = "choose another folder with --out") -> None:
    """Refuse a folder, or file, that is already there.

    Args:
        folder: where something new is to be.
        advice: what to do instead.

    Raises:
        FileExistsError: it is there; the message says what to do instead.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} already exists and is never overwritten; {advice}")


def write(path: Path, text: str) -> None:
    """Write a small file whole, or not at all.

    Raises:
        OSError: it could not be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(f"could not write {path}: {reason}") from error

"""`log.jsonl`: one line of JSON for each step that is logged."""

import json
from pathlib import Path

from saccade.training.checkpoint import could_not_write


def append(path: Path, line: dict[str, int | float]) -> None:
    """Add one line.

    Raises:
        OSError: it could not be written, as on a full disk.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise could_not_write(path, path.parent, error) from error


def forget_after(path: Path, step: int) -> None:
    """Drop the lines of steps after `step`, which a resumed run does again, and a line that was cut off."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    partial.replace(path)


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")

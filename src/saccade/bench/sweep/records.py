"""The records of a sweep: one JSON file a cell, written whole or not at all, so that a sweep goes on where it stopped.

A record holds the settings that it was made with. One whose settings are not those of the plan is never taken for
the plan's, and never thrown away unasked.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from saccade.bench.report import finite
from saccade.bench.sweep.plan import Cell, Plan
from saccade.errors import must_be
from saccade.tasks import Recipe
from saccade.writing import write

FOLDER = "records"
DONE, FAILED, SKIPPED = "done", "failed", "skipped"

Record = dict[str, Any]
Records = dict[Cell, Record]


def read_records(out: Path) -> Records:
    """All records of a sweep.

    Args:
        out: the folder of a sweep, or a file in which they stand one a line.

    Raises:
        ValueError: a file that is no record.
    """
    if out.is_file():
        texts = {f"{out}, line {i}": line for i, line in enumerate(out.read_text(encoding="utf-8").splitlines(), 1)}
    else:
        texts = {str(path): path.read_text(encoding="utf-8") for path in sorted((out / FOLDER).glob("*.json"))}
    return dict(_parse(text, where) for where, text in texts.items())


def write_record(out: Path, record: Record) -> None:
    """Keep a record, in the place of an older one of its cell.

    Raises:
        OSError: it could not be written.
    """
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    cell = Cell(record["task"], record["mechanism"], record["seed"])
    write(out / FOLDER / file_name(cell), json.dumps(record, indent=1, allow_nan=False) + "\n")


def file_name(cell: Cell) -> str:
    """Readable, and another one for each cell."""
    words = re.sub(r"[^A-Za-z0-9_]+", "-", f"{cell.task}-{cell.mechanism}").strip("-")[:80]
    digest = hashlib.sha256(f"{cell.task}\n{cell.mechanism}".encode()).hexdigest()[:6]
    return f"{words}-{digest}-{'speed' if cell.seed is None else f'seed{cell.seed}'}.json"


def to_lines(records: Iterable[Record]) -> str:
    """All records in one text, one a line."""
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)


def waiting(plan: Plan, wanted: Sequence[Cell], records: Records, retry: bool = False) -> list[Cell]:
    """The cells that are still to be run: without a record, skipped for want of data, or failed if to be tried again.

    What failed with other settings than the plan's is tried again in any case.
    """
    again = {SKIPPED, FAILED} if retry else {SKIPPED}
    return [
        cell
        for cell in wanted
        if cell not in records
        or records[cell]["status"] in again
        or (records[cell]["status"] == FAILED and changed(plan, cell, records[cell]))
    ]


def changed(plan: Plan, cell: Cell, record: Record) -> list[str]:
    """In words, the settings in which a record is not as the plan says.

    A record from before there was some setting was made as its default says.
    """
    defaults, made = _flat(finite(asdict(Recipe()))), _flat(record["settings"])
    asked = _flat(json.loads(json.dumps(finite(plan.settings(cell)))))
    return [
        f"{key} = {made.get(key, defaults.get(key))!r}, and the plan says {asked.get(key)!r}"
        for key in dict.fromkeys([*asked, *made])
        if made.get(key, defaults.get(key)) != asked.get(key)
    ]


def matching(plan: Plan, records: Records) -> Records:
    """The records that were made with the plan's settings."""
    own = {cell: record for cell, record in records.items() if cell.task in plan.recipes}
    return {cell: record for cell, record in own.items() if not changed(plan, cell, record)}


def refuse_changed(plan: Plan, wanted: Sequence[Cell], records: Records) -> None:
    """Refuse records of other settings.

    Raises:
        ValueError: naming the first of them and what to do.
    """
    for cell in wanted:
        if cell in records and records[cell]["status"] == DONE and (found := changed(plan, cell, records[cell])):
            advice = "choose another folder with --out, or run what has changed again with --redo"
            raise ValueError(f"the record of {cell} was made with {found[0]}; {advice}")


def _parse(text: str, where: str) -> tuple[Cell, Record]:
    try:
        record = json.loads(text)
        return Cell(record["task"], record["mechanism"], record["seed"]), record
    except (ValueError, KeyError, TypeError):
        advice = "without it, its cell is run again"
        raise ValueError(f"{where}: {must_be('the text', 'the record of a cell', text[:40])}; {advice}") from None


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found

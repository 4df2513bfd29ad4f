"""Finished runs side by side: what they score, what they cost, and in which settings they differ.

Runs of one task on the same data make a table. Records are kept one a line beside the page, so that runs can be added
later, from another machine too.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from saccade.errors import must_be
from saccade.tasks import TASKS
from saccade.training.metrics import is_share
from saccade.writing import write

Record = dict[str, Any]

HEAD = """# Results

Written by `saccade report` from [its records]({name}.jsonl), one a line, each with all settings, machine, versions,
seed and date. Scores are those of the test split; `validation` is what training went by, the higher the better: it
chose the weights, and the test had no say. Minutes are those of training with its validations; CPU minutes are those
of the whole command, near to what it takes on a machine that does nothing else. Memory is the most that the process
held. The first row of a table is a recipe as it stands, the others say what was changed in it.
"""

NEEDED = {"run", "task", "recipe", "scores", "parameters", "machine", "versions", "date"}
"""What a record must have."""


def read_records(path: Path) -> list[Record]:
    """The records of a page, one a line; none if there is no such file.

    Raises:
        ValueError: a line is no record; the message says which.
    """
    if not path.is_file():
        return []
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if (record := _record(line)) is None:
            raise ValueError(f"{path}, line {number}: {must_be('line', 'the record of a run', line[:60])}")
        records.append(record)
    return records


def _record(line: str) -> Record | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.keys() >= NEEDED else None


def with_these(old: Iterable[Record], new: Iterable[Record]) -> list[Record]:
    """All records, a new one in place of an old one of the same task and name, which keeps its place.

    Raises:
        ValueError: two new ones have the same task and name.
    """
    new = list(new)
    names = [record["run"] for record in new]
    if len({(record["task"], record["run"]) for record in new}) < len(new):
        raise ValueError(must_be("runs", "folders of different names", ", ".join(names)))
    found = {(record["task"], record["run"]): record for record in old}
    return list((found | {(record["task"], record["run"]): record for record in new}).values())


def write_page(records: Sequence[Record], page: Path) -> None:
    """Write the page, and its records beside it.

    Raises:
        OSError: they could not be written.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    write(page.with_suffix(".jsonl"), "".join(json.dumps(record) + "\n" for record in records))
    write(page, to_page(records, page.stem))


def to_page(records: Sequence[Record], name: str) -> str:
    """The page as Markdown; a function of its records alone."""
    head = HEAD.format(name=name)
    return "\n".join([head, *to_tables(records)])


def to_tables(records: Sequence[Record]) -> list[str]:
    """A table for each task and data set, in the order in which they come first."""
    order = list(dict.fromkeys(map(_place, records)))
    ordered = sorted(records, key=lambda record: order.index(_place(record)))
    return [_section(place, list(some)) for place, some in groupby(ordered, key=_place)]


def _place(record: Record) -> tuple[str, str]:
    return record["task"], Path(record["recipe"]["data"]["source"]).parent.name or record["recipe"]["data"]["source"]


def _section(place: tuple[str, str], records: Sequence[Record]) -> str:
    task, data = place
    shown = [found for name in TASKS[task].shown for found in _columns(name, records)]
    settings = [flat(record["recipe"]) for record in records]
    rows = [
        [
            f"`{record['run']}`",
            _differences(settings[0], own),
            *(_score(record["scores"], name) for name in shown),
            "" if record["validation"] is None else f"{record['validation']:.4g}",
            f"{record['parameters']:,}",
            f"{record['train_seconds'] / 60:.1f}",
            f"{record['cpu_seconds'] / 60:.1f}",
            f"{record['peak_bytes'] / 1e6:,.0f} MB" if record["peak_bytes"] else "",
        ]
        for record, own in zip(records, settings, strict=True)
    ]
    scores = (name.replace("_", " ") for name in shown)
    names = ["run", "changed", *scores, "validation", "parameters", "minutes", "CPU minutes", "memory"]
    left = ("run", "changed")
    head = [f"| {' | '.join(names)} |", f"| {' | '.join('---' if name in left else '---:' for name in names)} |"]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"## {task.replace('_', ' ')}: {data}\n", *head, *lines, "", *_places(records), ""])


def _columns(name: str, records: Sequence[Record]) -> list[str]:
    """A score, and those of each language alone where a model writes several, if any run has them."""
    sides = dict.fromkeys(side for record in records for side in record["recipe"]["data"].get("write", ()))
    wanted = [name, *(f"{name}_{side}" for side in sides)]
    return [each for each in wanted if any(each in record["scores"] for record in records)]


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _differences(first: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    changed = [
        f"`{name}={json.dumps(own.get(name))}`"
        for name in dict.fromkeys([*first, *own])
        if first.get(name) != own.get(name)
    ]
    return ", ".join(changed)


def _score(scores: Mapping[str, Any], name: str) -> str:
    value = scores.get(name)
    if not isinstance(value, int | float):
        return ""
    if name == "accuracy" and "half_width" in scores:
        return f"{value:.1%} ± {scores['half_width']:.1%}"
    return f"{value:.1%}" if is_share(name) else f"{value:.4g}"


def _places(records: Sequence[Record]) -> list[str]:
    """Where the runs were made, each place once."""
    found = dict.fromkeys(
        f"{record['machine']['gpu'] or record['machine']['cpu']}, {record['machine']['torch_threads']} threads, "
        f"torch {record['versions']['torch']}, {record['date'][:10]}"
        for record in records
    )
    return [f"Made on: {'; '.join(found)}."]

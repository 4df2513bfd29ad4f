"""Runs a sweep: the parts of a plan one after the other, and of each what has no record yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saccade.bench.sweep.choice import best
from saccade.bench.sweep.plan import Cell, Plan, canonical, cells
from saccade.bench.sweep.processes import Tell, run_cells
from saccade.bench.sweep.records import Record, Records, changed, matching, read_records, refuse_changed, waiting
from saccade.errors import unknown, whole_number

PARTS = ("first", "second", "speed")
"""Of a sweep: the trainings of all, those of the best, and the measurements, which want the machine for themselves."""


@dataclass(frozen=True)
class Only:
    """Single rows of a plan; what is empty chooses nothing out.

    Attributes:
        tasks: names in the plan.
        mechanisms: expressions; they need not be in the plan.
        seeds: any.
    """

    tasks: tuple[str, ...] = ()
    mechanisms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


def sweep(
    plan: Plan,
    out: Path,
    *,
    parts: Sequence[str] = PARTS,
    only: Only | None = None,
    jobs: int = 1,
    retry: bool = False,
    redo: bool = False,
    tell: Tell = lambda text: None,
) -> Records:
    """Run what a plan asks for and `out` does not hold yet.

    Args:
        plan: what to run.
        out: a folder, new or with the records of an earlier call.
        parts: some of `PARTS`.
        only: single rows, in place of the two stages.
        jobs: trainings at a time, each in a process of its own. Speed is measured one by one.
        retry: run again what has failed.
        redo: run again what was made with other settings than the plan's.
        tell: called with a line whenever there is something to say.

    Returns:
        All records of the folder.

    Raises:
        ValueError: an unknown part or task, no job, or a record made with other settings.
        KeyboardInterrupt: Ctrl-C; every record that was made is kept.
        OSError: a record could not be read or written.
    """
    whole_number("jobs", jobs)
    for part in parts:
        if part not in PARTS:
            raise ValueError(unknown("part", part, PARTS))
    for part in PARTS:
        if part not in parts:
            continue
        wanted = _wanted(plan, part, only or Only(), read_records(out), tell)
        records = read_records(out)
        if redo:
            records = {cell: record for cell, record in records.items() if not _differs(plan, wanted, cell, record)}
        refuse_changed(plan, wanted, records)
        todo = waiting(plan, wanted, records, retry)
        tell(f"{part}: {len(wanted) - len(todo)} of {len(wanted)} are done")
        run_cells(plan, todo, out, 1 if part == "speed" else jobs, tell)
    return read_records(out)


def _differs(plan: Plan, wanted: Sequence[Cell], cell: Cell, record: Record) -> bool:
    return cell in wanted and bool(changed(plan, cell, record))


def _wanted(plan: Plan, part: str, only: Only, records: Records, tell: Tell) -> list[Cell]:
    """The cells of one part."""
    if only != Only():
        return _chosen(plan, part, only)
    if part == "first":
        return plan.first()
    chosen = best(plan, matching(plan, records))
    if chosen is None:
        tell(f"{part}: the best are not known before the first part is done")
    elif part == "second":
        tell(f"{part}: the best by validation are {', '.join(chosen)}")
    if part == "speed":
        return plan.speeds(chosen or [])
    return [] if chosen is None else plan.second(chosen)


def _chosen(plan: Plan, part: str, only: Only) -> list[Cell]:
    """Single rows: the first part trains them, and there is no second."""
    for task in only.tasks:
        if task not in plan.recipes:
            raise ValueError(unknown("task", task, plan.recipes))
    mechanisms = [canonical(each) for each in only.mechanisms] or plan.mechanisms
    seeds = only.seeds or plan.frame.seeds
    own = {"first": seeds, "second": (), "speed": (None,)}[part]
    return cells(only.tasks or plan.recipes, mechanisms, own)

"""Runs a sweep: each cell in a process of its own, some at a time, and what is done already not again.

A process that dies takes one cell with it, whose record then says so. Processes start from a server that has torch
loaded, where the system can do that.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from saccade.bench.sweep.cell import outline, run_cell
from saccade.bench.sweep.plan import Cell, Plan
from saccade.bench.sweep.records import FAILED, FOLDER, Record, file_name, read_records, write_record

Tell = Callable[[str], object]


def run_cells(plan: Plan, waiting: Sequence[Cell], out: Path, jobs: int, tell: Tell) -> None:
    """Run cells, so many at a time, until each has its record.

    Raises:
        KeyboardInterrupt: Ctrl-C; the cells in hand are dropped, and every record that was made is kept.
    """
    context = _context()
    todo, running = list(waiting), dict[int, tuple[Cell, BaseProcess]]()
    clock = _Clock(len(todo), jobs, tell)
    try:
        while todo or running:
            while todo and len(running) < jobs:
                cell = todo.pop(0)
                _forget(out, cell)
                process = context.Process(target=_work, args=(plan, cell, out), daemon=True)
                process.start()
                running[process.sentinel] = cell, process
            ended = wait(list(running))
            for sentinel in [each for each in running if each in ended]:
                cell, process = running.pop(sentinel)
                process.join()
                clock.done(cell, _ended(plan, cell, out, process.exitcode))
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()


def _work(plan: Plan, cell: Cell, out: Path) -> None:
    """What a process does. One whose sweep was killed gives up at its next step."""
    parent = os.getppid()

    def on_step(step: int, loss: float, seconds: float) -> None:
        if os.getppid() != parent:
            os._exit(1)

    run_cell(plan, cell, out, on_step)


def _context() -> ForkServerContext | SpawnContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["saccade.bench.sweep.cell"])
    return context


def _forget(out: Path, cell: Cell) -> None:
    """Drop an older record of a cell, which could be taken for the new one."""
    (out / FOLDER / file_name(cell)).unlink(missing_ok=True)


def _ended(plan: Plan, cell: Cell, out: Path, code: int | None) -> Record:
    """The record of a cell whose process has ended, and of one that died before it could write any."""
    path = out / FOLDER / file_name(cell)
    if path.is_file():
        return read_records(out)[cell]
    if code == 0:
        raise KeyboardInterrupt
    record = outline(plan, cell)
    record |= {"status": FAILED, "reason": f"its process ended with exit code {code}: out of memory, or killed"}
    write_record(out, record)
    return record


class _Clock:
    """Tells what was done and how long the rest will take."""

    def __init__(self, cells: int, jobs: int, tell: Tell) -> None:
        self.cells, self.jobs, self.tell = cells, jobs, tell
        self.started, self.ready = time.perf_counter(), 0

    def done(self, cell: Cell, record: Record) -> None:
        """One more."""
        self.ready += 1
        passed = time.perf_counter() - self.started
        left = passed / self.ready * (self.cells - self.ready) / 60
        self.tell(f"[{self.ready}/{self.cells}] {cell}: {_said(record)}; about {left:.0f} min left")


def _said(record: Record) -> str:
    if record["status"] != "done":
        return f"{record['status']}, {record['reason']}"
    seconds = f"{record['seconds']:.0f} s"
    if record["seed"] is None:
        return f"measured in {seconds}"
    return f"test {record['test_accuracy']:.1%}, validation {record['validation_accuracy']:.1%}, {seconds}"

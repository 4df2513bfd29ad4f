"""`saccade sweep`: many mechanisms, tasks and seeds from one plan, and the page that shows what was found."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from saccade.commands.output import FAILED, Overrides, say

EXAMPLE = "saccade sweep plans/results.toml --out runs/results --jobs 2"


def sweep(
    plan: Annotated[Path, typer.Argument(help="A TOML file, such as plans/results.toml.")],
    out: Annotated[Path, typer.Option(help="The folder of the records; what is there already is not run again.")],
    report: Annotated[
        Path | None, typer.Option(help="Where the page goes. Otherwise results.md in the folder of the records.")
    ] = None,
    parts: Annotated[
        list[str] | None, typer.Option("--only", help="first, second, speed or page; repeat at will. Otherwise all.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Single rows: of this task of the plan.")] = None,
    mechanism: Annotated[list[str] | None, typer.Option(help="Single rows: of this mechanism.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Single rows: from this seed.")] = None,
    jobs: Annotated[int, typer.Option(help="Trainings at a time.")] = 1,
    retry: Annotated[bool, typer.Option("--retry", help="Run again what has failed.")] = False,
    redo: Annotated[bool, typer.Option("--redo", help="Run again what was made with other settings.")] = False,
    overrides: Overrides = None,
) -> None:
    """Run the cells of a plan (a task, a mechanism and a seed each) that have no record yet, and write the page.

    Ctrl-C loses the cells in hand; the same command goes on. First all mechanisms are trained, then the best by
    validation from more seeds, then speed is measured, for which the machine should have nothing else to do.
    """
    from saccade.bench.sweep.page import write_page
    from saccade.bench.sweep.plan import read_plan
    from saccade.bench.sweep.run import PARTS, Only
    from saccade.bench.sweep.run import sweep as run_sweep

    chosen = list(PARTS) if not parts else [part for part in parts if part != "page"]
    rows = Only(tuple(task or ()), tuple(mechanism or ()), tuple(seed or ()))
    settings = read_plan(plan, overrides or [])
    try:
        records = run_sweep(settings, out, parts=chosen, only=rows, jobs=jobs, retry=retry, redo=redo, tell=_tell)
    except KeyboardInterrupt:
        _tell(f"stopped; what is done is in {out}, and the same command goes on")
        raise
    place = report or out / "results.md"
    write_page(settings, plan, records, place)
    say(f"{len(records)} records in {out}, page: {place}")
    if failed := [str(cell) for cell, record in records.items() if record["status"] == "failed"]:
        say(f"failed: {'; '.join(failed)}; run them again with --retry")
        raise typer.Exit(FAILED)


def _tell(line: str) -> None:
    """Progress goes where it does not mix with what a program reads."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()

"""`saccade report`: finished runs side by side."""

from pathlib import Path
from typing import Annotated

import typer

from saccade.commands.output import say

EXAMPLE = "saccade report runs/pos runs/pos-lstm --out results.md"


def report(
    run_folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Runs that are finished.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="Add them to this page, and to the records beside it (.jsonl)."),
    ] = None,
) -> None:
    """Show what runs score and cost, and in which settings they differ: a table for each task and data set."""
    from saccade.bench import runs_report
    from saccade.errors import must_be
    from saccade.tasks.run_folder import read_record

    records = [read_record(folder) for folder in run_folders]
    if out is None:
        say("\n".join(runs_report.to_tables(records)))
        return
    if out.suffix != ".md":
        raise ValueError(must_be("--out", "a file that ends in .md", out.name))
    known = runs_report.read_records(out.with_suffix(".jsonl"))
    if out.exists() and not known:
        raise FileExistsError(f"{out} is no page of this command and is never overwritten; choose another name")
    whole = runs_report.with_these(known, records)
    runs_report.write_page(whole, out)
    say(f"{len(whole)} runs in {out}")

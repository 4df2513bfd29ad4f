"""`saccade compare`: train and score mechanisms, and say which to choose."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from saccade.commands.output import FAILED, INTERRUPTED, Overrides, say

EXAMPLE = "saccade compare --mechanisms 'full, local(left=64), linear' --data reviews.csv"


def compare(
    mechanisms: Annotated[
        str | None,
        typer.Option(help="With commas between them. Otherwise full, local(left=64), big_bird(block=32), linear."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="stdlib (the default), listops, a .jsonl or .csv file, or hub:NAME.")
    ] = None,
    length: Annotated[int | None, typer.Option(help="Bytes of an example; longer ones are cut.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of each mechanism.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples in a step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, batches and dropout.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Start from this TOML file.")] = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for report, records and picture. Otherwise runs/compare-TIME.")
    ] = None,
    baseline: Annotated[
        bool, typer.Option(help="Include dense attention (`full`), next to which speeds are given.")
    ] = True,
) -> None:
    """Train and score mechanisms with equal steps, seed and data, and say which to choose.

    Without options: full, local, big_bird and linear attention in a small model, on passages of 1,024 bytes from
    the sources of Python's standard library; some five minutes on two cores. Ctrl-C keeps what is done.
    """
    from saccade.bench.compare import DEFAULT_MECHANISMS, REPORT, comparison_recipe
    from saccade.bench.compare import compare as run_comparison
    from saccade.bench.live import live

    given = {
        "data.source": data,
        "data.length": length,
        "training.steps": steps,
        "training.batch_size": batch_size,
        "training.seed": seed,
    }
    chosen = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    settings = comparison_recipe(recipe, [*chosen, *(overrides or [])])
    out = out or Path("runs") / time.strftime("compare-%Y%m%d-%H%M%S")
    with live(Console(stderr=True)) as on_change:
        found = run_comparison(
            settings,
            DEFAULT_MECHANISMS if mechanisms is None else mechanisms,
            out,
            baseline=baseline,
            on_change=on_change,
        )
    say((out / REPORT).read_text(encoding="utf-8"))
    say(f"everything is in {out}")
    if found.stopped:
        raise typer.Exit(INTERRUPTED)
    if all(row.status == "failed" for row in found.rows):
        raise typer.Exit(FAILED)

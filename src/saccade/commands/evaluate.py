"""`saccade evaluate`: score the model of a run."""

import json
from pathlib import Path
from typing import Annotated

import typer

from saccade.commands.output import say, scores

EXAMPLE = "saccade evaluate runs/big_bird --data reviews.csv"


def evaluate(
    run_folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run that `saccade train` has finished.")],
    data: Annotated[str | None, typer.Option(help="Other data than the run's own, such as a file.")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, validation or test (the default). Another file is scored whole.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key of what is read, such as windows.stride=16."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score the model of a run."""
    from saccade.tasks import TASKS, recipe_of

    metrics = TASKS[recipe_of(run_folder).task].evaluate(run_folder, data, overrides or [], split)
    say(json.dumps(metrics, indent=2) if as_json else scores(metrics))

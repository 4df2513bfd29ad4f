"""`saccade train`: train the model of a recipe."""

import time
from pathlib import Path
from typing import Annotated

import typer

from saccade.commands.output import Overrides, say, scores

EXAMPLE = "saccade train recipes/stdlib.toml --set model.mechanism=big_bird --out runs/big_bird"


def train(
    recipe: Annotated[Path | None, typer.Argument(help="A TOML file with task, data, model and training.")] = None,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="A new folder for the run. Otherwise runs/NAME-TIME.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Continue this run instead.")] = None,
) -> None:
    """Train the model of a recipe, or continue a run that was stopped."""
    from saccade import tasks

    if (recipe is None) == (resume is None) or (resume is not None and (overrides or out)):
        raise typer.BadParameter("give a RECIPE, with --set and --out if you like, or --resume DIR alone")
    if resume is not None:
        metrics = tasks.resume(resume)
        out = resume
    else:
        settings = tasks.load_recipe(recipe, overrides or [])
        out = out or Path("runs") / f"{recipe.stem if recipe else ''}{time.strftime('-%Y%m%d-%H%M%S')}"
        metrics = tasks.train(settings, out)
    say(scores(metrics))
    say(f"everything is in {out}")

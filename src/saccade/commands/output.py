"""What the commands have in common: exit codes, options, and how they print."""

import sys
from typing import Annotated, Any

import typer

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe; repeat at will.")
]
"""`--set`, as all commands take it that read a recipe."""


def say(text: str) -> None:
    """Print one text to stdout."""
    sys.stdout.write(f"{text}\n")


def scores(metrics: dict[str, Any]) -> str:
    """Scores in words: accuracies as percentages, each with how far chance may move it."""
    from saccade.training.metrics import is_share

    texts = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in metrics.items()}
    texts |= {name: f"{value:.1%}" for name, value in metrics.items() if is_share(name)}
    if "half_width" in texts:
        texts["accuracy"] += f" ± {texts.pop('half_width')}"
    return "\n".join(f"{name.replace('_', ' ')}: {text}" for name, text in texts.items())

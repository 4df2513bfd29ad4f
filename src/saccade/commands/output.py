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
    """Scores in words: accuracies as percentages."""
    shares = {name: f"{metrics[name]:.1%}" for name in ("accuracy", "half_width", "majority_share")}
    texts = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in metrics.items()}
    texts |= {"accuracy": f"{shares['accuracy']} ± {shares['half_width']}", "majority_share": shares["majority_share"]}
    return "\n".join(f"{name.replace('_', ' ')}: {text}" for name, text in texts.items() if name != "half_width")

"""What the commands have in common: exit codes, options, and how they print."""

import sys
from typing import Annotated, Any

import typer

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130

SHARES = ("accuracy", "half_width", "majority_share", "unknown_share", "per", "word_error")
"""Scores that are shares, from 0 to 1; of one side alone they bear its name behind theirs."""

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe; repeat at will.")
]
"""`--set`, as all commands take it that read a recipe."""


def say(text: str) -> None:
    """Print one text to stdout."""
    sys.stdout.write(f"{text}\n")


def scores(metrics: dict[str, Any]) -> str:
    """Scores in words: accuracies as percentages, each with how far chance may move it."""
    texts = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in metrics.items()}
    shares = [name for name in metrics if any(name == share or name.startswith(f"{share}_") for share in SHARES)]
    texts |= {name: f"{metrics[name]:.1%}" for name in shares}
    if "half_width" in texts:
        texts["accuracy"] += f" ± {texts.pop('half_width')}"
    return "\n".join(f"{name.replace('_', ' ')}: {text}" for name, text in texts.items())

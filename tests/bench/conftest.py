"""A comparison small enough for a test: two letters to tell apart, and the smallest of models."""

from pathlib import Path

import pytest

from saccade.bench.compare import comparison_recipe

SMALL = (
    "data.length=64",
    "model.width=8",
    "model.heads=2",
    "model.layers=1",
    "model.hidden=8",
    "training.steps=3",
    "training.batch_size=5",
)


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A CSV file of texts of one letter, whose label is the letter."""
    path = tmp_path / "letters.csv"
    rows = (f"{'ab'[i % 2] * (i % 13 + 1)},{'ab'[i % 2]}" for i in range(120))
    path.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    return path


@pytest.fixture
def small_recipe(letters: Path):
    return comparison_recipe(None, [f"data.source={letters}", *SMALL])

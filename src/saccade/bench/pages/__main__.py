"""`python -m saccade.bench.pages FOLDER`: write the page and the picture of every mechanism into a folder."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from saccade.attention import MECHANISMS
from saccade.bench.pages.examples import example
from saccade.bench.pages.index import SMALL, index
from saccade.bench.pages.page import page
from saccade.bench.pages.passage import LENGTH, RECIPE, trained_passage
from saccade.bench.pages.picture import small_figure, weights_figure
from saccade.bench.plots import save
from saccade.tasks import Recipe
from saccade.writing import write

COLORS = 64
"""Of a picture: the shades of the weights and of the words."""


def texts() -> dict[str, str]:
    """All pages by the names of their files.

    Raises:
        ValueError: a docstring lacks what a page needs; the message says which, and what.
    """
    return {"README.md": index(), **{f"{name}.md": page(name) for name in MECHANISMS}}


def write_pages(folder: Path, recipe: Recipe | None = RECIPE) -> None:
    """Write the texts, which are quick and refuse what is missing, and then the pictures.

    Args:
        folder: where to; what is there is replaced.
        recipe: of the model whose heads are drawn; without one only texts are written.

    Raises:
        ValueError: as `texts`.
        OSError: a file could not be written.
    """
    found = texts()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in found.items():
        write(folder / name, text)
    if recipe is None:
        return
    passage = trained_passage(recipe, say)
    (folder / SMALL).mkdir(exist_ok=True)
    for name in MECHANISMS:
        spec = example(name, LENGTH)
        save(weights_figure(spec, passage), folder / f"{name}.png", COLORS)
        save(small_figure(spec, passage), folder / SMALL / f"{name}.png", COLORS)
        say(f"wrote {folder / name}.png")


def say(text: str) -> None:
    """Print one line."""
    sys.stdout.write(f"{text}\n")


def main(
    folder: Path,
    only_texts: Annotated[bool, typer.Option("--texts", help="Leave the pictures as they are.")] = False,
) -> None:
    """Write the page and the picture of every mechanism into a folder."""
    write_pages(folder, None if only_texts else RECIPE)


if __name__ == "__main__":
    typer.run(main)

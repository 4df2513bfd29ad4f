"""Figures as PNG or SVG files: who looks at whom, and speed against score. Never opens a window.

matplotlib is an extra (`pip install 'saccade[plots]'`) and is imported only when a figure is drawn.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from saccade.bench.shades import INK, NEGATIVE, PAPER, cells, ink
from saccade.bench.show import View, legend
from saccade.errors import must_be

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg")
ACROSS = 4

DOTS = 160
"""Of a .png, to an inch."""


def new_figure(width: float, height: float) -> "Figure":
    """An empty white figure of so many inches, outside matplotlib's list of windows.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message says how to install it.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("pictures need matplotlib: pip install 'saccade[plots]'") from error
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def check_path(path: Path, overwrite: bool = False) -> None:
    """Refuse a place that no figure can be saved to, before the work of drawing one.

    Raises:
        ValueError: another ending than .png or .svg.
        FileExistsError: there is such a file, and it is not to be overwritten.
        FileNotFoundError: the folder does not exist.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(must_be("picture", f"a file that ends in {' or '.join(ENDINGS)}", str(path)))
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} already exists: choose another name, or add --overwrite")
    if not path.parent.is_dir():
        raise FileNotFoundError(must_be("the picture's folder", "an existing folder", str(path.parent)))


def save(figure: "Figure", path: Path, colors: int | None = None) -> None:
    """Write the figure; the file appears whole or not at all.

    Args:
        figure: what to write.
        path: where to; it ends in .png or .svg.
        colors: of a .png: how many different ones are kept, at most 256. Few make a file of a third of the size.

    Raises:
        OSError: it could not be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    # The date would make two files of one figure differ.
    metadata = {"Date": None} if kind == "svg" else None
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saccade-") as folder:
        partial = Path(folder) / path.name
        figure.savefig(partial, format=kind, dpi=DOTS, metadata=metadata)
        if colors is not None:
            _reduce(partial, colors)
        os.replace(partial, path)


def _reduce(path: Path, colors: int) -> None:
    from PIL import Image  # comes with matplotlib

    with Image.open(path) as image:
        image.convert("RGB").quantize(colors).save(path, optimize=True)


def views_figure(views: Sequence[View]) -> "Figure":
    """The views side by side, at most four in a row, one square for each head; below them what the shades mean."""
    squares = [(view, head) for view in views for head in range(len(view.weights))]
    across = min(ACROSS, len(squares))
    down = -(-len(squares) // across)
    side, most_cells = (4.2, 256) if len(squares) == 1 else (2.3, 128)
    width = (side + 0.45) * across
    titles = [_title(view, head, int(11 * side)) for view, head in squares]
    meaning = "\n".join(part for line in legend(views) for part in wrap(line, int(16 * width)))
    above = 0.65 + 0.18 * max(title.count("\n") + 1 for title in titles)
    figure = new_figure(width, (side + above) * down + 0.15 * (meaning.count("\n") + 1))
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for axis, (view, head), title in zip(axes, squares, titles, strict=False):
        axis.set_title(title, fontsize=10, fontweight="bold", loc="left", pad=16)
        _draw_view(axis, view, head, most_cells)
    for axis in axes[len(squares) :]:
        axis.axis("off")
    figure.supxlabel(meaning, x=0.01, ha="left", fontsize=8, color="#444444")
    # The layout would let a title of several lines touch the edge, or pass it.
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - 0.1 / figure.get_figheight()))
    return figure


def _title(view: View, head: int, width: int) -> str:
    """Whose square it is, in lines of so many characters."""
    return "\n".join(wrap(", ".join(filter(None, [view.title, view.names[head]])), width))


def ink_colors() -> "Colormap":
    """From orange for full ink below zero, at -1, over paper at 0 to ink at 1; white where there is no number."""
    from matplotlib.colors import LinearSegmentedColormap

    shades = [tuple(part / 255 for part in color) for color in (NEGATIVE, PAPER, INK)]
    return LinearSegmentedColormap.from_list("ink", shades, N=513).with_extremes(bad="white")


def _draw_view(axis: "Axes", view: View, head: int, most_cells: int) -> None:
    side, n = cells(view.length, most_cells), view.length
    levels = ink(view.strength[head], side, side)
    axis.imshow(levels.numpy(), cmap=ink_colors(), vmin=-1, vmax=1, extent=(0, n, n, 0), interpolation="nearest")
    between = ", " if len(view.weights) == 1 else ", layer: "
    facts = f"{view.kept[head]:.0%} of pairs{between}{view.operations:.0%} of full's operations"
    above = {"xytext": (0, 4), "textcoords": "offset points", "fontsize": 7.5, "color": "#444444"}
    axis.annotate(facts, (0, 1), xycoords="axes fraction", **above).set_in_layout(False)
    axis.set_xlabel("keys" if view.seed is None else "keys (made-up content)", fontsize=8, labelpad=-6)
    axis.set_ylabel("queries", fontsize=8)
    axis.yaxis.set_label_coords(-0.04, 0.5)
    axis.set_xticks([0, n], ["0", f"{n:,}"])
    axis.set_yticks([0, n], ["0", f"{n:,}"])
    axis.tick_params(labelsize=7, length=2, colors="#666666")
    for spine in axis.spines.values():
        spine.set_color("#c8d0da")

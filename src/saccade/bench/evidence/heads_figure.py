"""A picture for each head of each layer: its weights as queries by keys, or as a heat map on a grid."""

from typing import TYPE_CHECKING

from saccade.bench.evidence.heat_map import Grid, heat_map, middle
from saccade.bench.plots import ink_colors, new_figure
from saccade.bench.shades import cells, heat
from saccade.shapes import Float, Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

WIDTH, LARGEST = 12.0, 2.6
"""Inches across the figure, and of one picture."""

MOST_CELLS = 128
QUERY = "#e8590c"


def heat_map_figure(
    weights: Float[Tensor, "layers h n n"], grid: Grid, query: tuple[int, int] | None = None
) -> "Figure":
    """A heat map for each layer and head: where one query of a grid looks.

    Args:
        weights: of each query and key, such as the mean over images.
        grid: height and width, whose product is n.
        query: its row and column; the middle if not given.

    Raises:
        ValueError: a grid of another size than the sequence, or a query outside of it.
        ModuleNotFoundError: matplotlib is not installed.
    """
    maps = heat_map(weights, grid, query)
    width = min(WIDTH, LARGEST * maps.shape[1])
    figure = new_figure(width, inches_down(maps))
    draw_heads(figure, maps, middle(grid) if query is None else query)
    return figure


def inches_down(maps: Float[Tensor, "layers h height width"]) -> float:
    """How tall the pictures and their titles are together."""
    layers, heads, height, width = maps.shape
    return (min(LARGEST, WIDTH / heads) * height / width + 0.3) * layers + 0.4


def draw_heads(
    figure: "Figure | SubFigure",
    maps: Float[Tensor, "layers h height width"],
    query: tuple[int, int] | None = None,
) -> None:
    """Draw each head, darkest where its own weight is largest.

    Args:
        figure: where to.
        maps: queries by keys, or rows by columns of a grid.
        query: its row and column, where the maps are of a grid; it is framed.
    """
    layers, heads, height, width = maps.shape
    axes = figure.subplots(layers, heads, squeeze=False)
    for layer in range(layers):
        for head in range(heads):
            axis: Axes = axes[layer, head]
            levels = heat(maps[layer, head], cells(height, MOST_CELLS), cells(width, MOST_CELLS))
            axis.imshow(levels.numpy(), cmap=ink_colors(), vmin=-1, vmax=1, extent=(0, width, height, 0))
            axis.set_title(f"layer {layer}, head {head}", fontsize=8, loc="left", pad=3)
            axis.set_xticks([0, width])
            axis.set_yticks([0, height])
            axis.tick_params(labelsize=6, length=2, colors="#666666")
            if query is not None:
                _frame(axis, *query)
    axes[0, 0].set_ylabel("queries" if query is None else "rows", fontsize=8)
    axes[-1, 0].set_xlabel("keys" if query is None else "columns", fontsize=8, labelpad=-6)


def _frame(axis: "Axes", row: int, column: int) -> None:
    from matplotlib.patches import Rectangle

    axis.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor=QUERY, linewidth=1.5))

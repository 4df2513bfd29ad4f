"""Weights of a sequence that is a grid, such as the pixels or patches of an image, as heat maps.

Token number i stands at row `i // width` and column `i % width`. The map of a query is the picture of its keys: the
brighter, the more weight (as in Cordonnier et al. 2020, figure 1, where heads are seen to look at fixed offsets).
"""

from saccade.errors import must_be
from saccade.shapes import Float, Tensor

Grid = tuple[int, int]
"""Height and width."""


def read_grid(text: str) -> Grid:
    """The height and width in a text such as `8x12`.

    Raises:
        ValueError: it is no such text.
    """
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ValueError(must_be("grid", "HEIGHTxWIDTH, such as 8x12", text))
    return int(height), int(width)


def heat_map(
    weights: Float[Tensor, "*heads n n"], grid: Grid, query: tuple[int, int] | None = None
) -> Float[Tensor, "*heads height width"]:
    """Where the query at `(row, column)` looks, as a picture.

    Args:
        weights: of each query and key.
        grid: height and width, whose product is n.
        query: row and column; the middle if not given.

    Raises:
        ValueError: a grid of another size than the sequence, or a query outside of it.
    """
    (height, width), n = grid, weights.shape[-1]
    if height * width != n:
        raise ValueError(must_be("grid", f"of as many cells as there are tokens ({n})", f"{height}x{width}"))
    row, column = middle(grid) if query is None else query
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(must_be("query", f"a row and a column of the {height}x{width} grid", (row, column)))
    return weights[..., row * width + column, :].unflatten(-1, (height, width))


def middle(grid: Grid) -> tuple[int, int]:
    """The row and column of the middle, or of the first cell behind it."""
    return grid[0] // 2, grid[1] // 2

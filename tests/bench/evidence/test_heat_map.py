import pytest
import torch

from saccade.bench.evidence.heads_figure import heat_map_figure
from saccade.bench.evidence.heat_map import heat_map, middle, read_grid

HEIGHT, WIDTH = 3, 5


def looking(query, key):
    """Weights of a grid in which one query looks at one key."""
    weights = torch.zeros(1, 1, HEIGHT * WIDTH, HEIGHT * WIDTH)
    weights[0, 0, query[0] * WIDTH + query[1], key[0] * WIDTH + key[1]] = 1
    return weights


@pytest.mark.parametrize(("query", "key"), [((0, 0), (2, 4)), ((2, 1), (0, 3)), ((1, 4), (1, 0))])
def test_the_weight_is_bright_at_its_row_and_column(query, key):
    (drawn,) = heat_map(looking(query, key), (HEIGHT, WIDTH), query)[0]
    assert drawn.shape == (HEIGHT, WIDTH)
    assert drawn.nonzero().tolist() == [list(key)]
    other = (query[0], (query[1] + 1) % WIDTH)
    assert not heat_map(looking(query, key), (HEIGHT, WIDTH), other).any()


def test_the_picture_has_rows_down_and_columns_across():
    figure = heat_map_figure(looking((2, 1), (0, 3)), (HEIGHT, WIDTH), (2, 1))
    (axis,) = figure.axes
    image = axis.images[0]
    assert torch.as_tensor(image.get_array()).nonzero().tolist() == [[0, 3]]
    assert tuple(image.get_extent()) == (0, WIDTH, HEIGHT, 0)
    (frame,) = axis.patches
    assert (frame.get_x(), frame.get_y()) == (1, 2)
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("rows", "columns")


def test_a_head_of_fixed_offset_shows_it_from_the_middle():
    n = HEIGHT * WIDTH
    offset = torch.eye(n).roll(WIDTH + 2, 1)[None, None].expand(2, 3, n, n)
    assert middle((HEIGHT, WIDTH)) == (1, 2)
    maps = heat_map(offset, (HEIGHT, WIDTH))
    assert maps.shape == (2, 3, HEIGHT, WIDTH)
    assert maps[1, 2].nonzero().tolist() == [[2, 4]]
    assert len(heat_map_figure(offset, (HEIGHT, WIDTH)).axes) == 6


def test_refuses_what_is_no_grid_of_the_sequence():
    weights = torch.rand(1, 1, 12, 12)
    with pytest.raises(ValueError, match=r"grid must be of as many cells as there are tokens \(12\), got '3x5'"):
        heat_map(weights, (3, 5))
    for query in ((3, 0), (0, 4), (-1, 0)):
        with pytest.raises(ValueError, match="query must be a row and a column of the 3x4 grid, got"):
            heat_map(weights, (3, 4), query)


def test_grids_are_read():
    assert read_grid("8x12") == (8, 12)
    assert read_grid("8X12") == (8, 12)
    for text in ("8", "x8", "8x", "0x3", "8x-3", "axb", "2x3x4"):
        with pytest.raises(ValueError, match="grid must be HEIGHTxWIDTH, such as 8x12, got"):
            read_grid(text)

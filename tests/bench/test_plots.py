import builtins
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from matplotlib import image

from saccade.bench.plots import check_path, new_figure, save, views_figure
from saccade.bench.show import look


def squares(figure):
    return [axis for axis in figure.axes if axis.images]


def test_the_squares_of_a_figure_are_the_masks():
    views = [look(each, 29) for each in ("local(left=3)", "strided(stride=7)", "full")]
    found = squares(views_figure(views))
    assert len(found) == 3
    for axis, view in zip(found, views, strict=True):
        assert torch.equal(torch.as_tensor(axis.images[0].get_array()) != 0, view.weights[0] != 0)
        assert "\n".join(axis.get_title(loc="left").split()) == "\n".join(view.title.split())
        assert (axis.get_ylabel(), axis.get_xlabel()) == ("queries", "keys")


def test_queries_go_down_and_keys_across():
    (axis,) = squares(views_figure([look("local(left=2, right=0)", 8)]))
    left, right, bottom, top = axis.images[0].get_extent()
    assert (left, right, bottom, top) == (0, 8, 8, 0)
    # Query 5 sees key 3: the array's row is the query.
    assert axis.images[0].get_array()[5, 3] == 1
    assert axis.images[0].get_array()[3, 5] == 0


def test_every_head_has_a_square():
    view = look("big_bird(block=2, per_head=True)", 32, heads=5)
    figure = views_figure([view])
    assert [axis.get_title(loc="left").split()[-1] for axis in squares(figure)] == list("01234")


def test_png_and_svg_are_what_they_say(tmp_path):
    figure = views_figure([look("local(left=3)", 16)])
    save(figure, tmp_path / "a.png")
    save(figure, tmp_path / "a.svg")
    pixels = image.imread(tmp_path / "a.png")
    assert min(pixels.shape[:2]) > 400
    assert pixels.std() > 0.1
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg"]


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    figure = new_figure(1.0, 1.0)

    def full_disk(path, **options):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(figure, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_refuses_places_for_a_picture(tmp_path):
    with pytest.raises(ValueError, match=r"must be a file that ends in .png or .svg, got 'a.gif'"):
        check_path(tmp_path.relative_to(tmp_path) / "a.gif")
    with pytest.raises(FileNotFoundError, match="must be an existing folder"):
        check_path(tmp_path / "no" / "a.png")
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(FileExistsError, match="already exists"):
        check_path(tmp_path / "a.png")
    check_path(tmp_path / "a.png", overwrite=True)


def test_without_matplotlib_it_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'saccade\[plots\]'"):
        new_figure(1.0, 1.0)

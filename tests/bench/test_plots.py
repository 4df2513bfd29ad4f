import builtins
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from matplotlib import image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from saccade.bench.plots import check_path, ink_colors, new_figure, save, views_figure
from saccade.bench.shades import INK, NEGATIVE, PAPER
from saccade.bench.show import legend, look


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


def test_weights_have_the_ink_of_their_shares_and_a_legend_below():
    views = [look(each, 16) for each in ("full", "mixed", "linformer")]
    figure = views_figure(views)
    found = squares(figure)
    for axis, wanted in zip(found, [each for view in views for each in view.strength], strict=True):
        level = wanted.abs().clamp(max=1).sqrt() * wanted.sign()
        torch.testing.assert_close(torch.as_tensor(axis.images[0].get_array()), level)
        assert axis.images[0].get_clim() == (-1, 1)
    assert [axis.get_xlabel() for axis in found] == ["keys", *["keys (made-up content)"] * 3]
    assert " ".join(figure.get_supxlabel().split()) == " ".join(legend(views))
    facts = [axis.texts[0].get_text() for axis in found]
    assert facts[0] == "100% of pairs, 100% of full's operations"
    assert facts[1].startswith("100% of pairs, layer: ")


def test_colors_are_paper_at_zero():
    colors = [tuple(round(255 * part) for part in ink_colors()(level)[:3]) for level in (0.0, 0.5, 1.0)]
    assert colors == [NEGATIVE, PAPER, INK]


@pytest.mark.parametrize(
    "views",
    [
        ["full"],
        ["linear", "(Local(32) & Strided(4)) | Global(8) | Local(3, 9) | Strided(5)"],
        ["mixed", "lsh", "mixed(parts=[('sinkhorn(block=8)', 1), ('longformer(window=4)', 3)])", "linformer"],
    ],
)
def test_no_text_leaves_the_figure_or_meets_another(views):
    figure = views_figure([look(each, 32) for each in views])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    inside = figure.bbox
    for text, box in boxes:
        assert inside.x0 <= box.x0 < box.x1 <= inside.x1, text
        assert inside.y0 <= box.y0 < box.y1 <= inside.y1, text
    for number, (text, box) in enumerate(boxes):
        assert not [other for other, its in boxes[:number] if other != text and box.overlaps(its)], text


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

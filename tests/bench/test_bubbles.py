import itertools
import math
from dataclasses import replace

import pytest
from matplotlib.collections import PathCollection
from rows import comparison, row

from saccade.bench.bubbles import LARGEST, comparison_figure
from saccade.bench.plots import save
from saccade.bench.report import Row

FULL = row("full", range(250), 1.0, 400)
LOCAL = row("local", range(248), 0.4, 100)
CLOSE = row("longformer", range(247), 0.41, 50)


def bubbles(figure):
    return [each for each in figure.axes[0].collections if isinstance(each, PathCollection)]


def labels(figure):
    return {text.get_text().partition("\n")[0]: text for text in figure.axes[0].texts if "MB" in text.get_text()}


def test_speed_across_score_up_memory_as_area():
    figure = comparison_figure(comparison(FULL, LOCAL))
    full, local = bubbles(figure)
    assert full.get_offsets().tolist() == [[1.0, 62.5]]
    assert local.get_offsets()[0].tolist() == pytest.approx([2.5, 62.0])
    assert full.get_sizes().tolist() == [LARGEST]
    assert local.get_sizes().tolist() == [LARGEST / 4]


def test_dense_is_marked_and_guessing_is_a_dashed_line():
    figure = comparison_figure(comparison(FULL, LOCAL))
    assert set(labels(figure)) == {"full (dense)", "local"}
    full, local = bubbles(figure)
    assert full.get_edgecolor().tolist() != local.get_edgecolor().tolist()
    dashed = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashed] == [20.0]


def test_labels_cover_neither_each_other_nor_a_bubble():
    figure = comparison_figure(comparison(FULL, LOCAL, CLOSE, row("twin", range(248), 0.4, 100)))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in labels(figure).values()]
    assert len(boxes) == 4
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    axis = figure.axes[0]
    for bubble, box in itertools.product(bubbles(figure), boxes):
        x, y = axis.transData.transform(bubble.get_offsets()[0])
        radius = math.sqrt(bubble.get_sizes()[0] / math.pi) * figure.dpi / 72
        nearest = (min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1))
        assert math.dist((x, y), nearest) >= radius - 1


def test_very_different_speeds_get_a_logarithmic_axis():
    far = row("linear", range(240), 0.05)
    assert comparison_figure(comparison(FULL, far)).axes[0].get_xscale() == "log"
    assert comparison_figure(comparison(FULL, LOCAL)).axes[0].get_xscale() == "linear"


def test_without_a_baseline_speed_is_in_steps():
    figure = comparison_figure(comparison(LOCAL, CLOSE, baseline=None))
    assert figure.axes[0].get_xlabel() == "training steps per second"
    assert bubbles(figure)[0].get_offsets()[0][0] == pytest.approx(LOCAL.steps_per_second)


def test_where_memory_is_unknown_bubbles_are_alike():
    unknown = [replace(each, peak_bytes=None) for each in (FULL, LOCAL)]
    first, second = bubbles(comparison_figure(comparison(*unknown)))
    assert first.get_sizes()[0] == second.get_sizes()[0] > 0


def test_what_failed_is_not_drawn(tmp_path):
    figure = comparison_figure(comparison(FULL, Row("linear", "failed", "no")))
    assert len(bubbles(figure)) == 1
    save(figure, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")

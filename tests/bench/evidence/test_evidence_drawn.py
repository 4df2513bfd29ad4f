"""The evidence on the screen and in a figure."""

import io
from pathlib import Path

import pytest
import torch
from evidence_cases import banded, of_rank, softmax_weights, weighed
from rich.console import Console
from rich.text import Text

from saccade.attention import to_mechanism
from saccade.bench.evidence.gather import RunEvidence
from saccade.bench.evidence.plots import evidence_figure
from saccade.bench.evidence.terminal import draw_evidence
from saccade.bench.plots import save
from saccade.bench.shades import heat


def of_a_run(*examples, mechanisms=()):
    found = weighed(*examples, mechanisms=mechanisms)
    own = (to_mechanism("full"),) * examples[0].shape[0]
    return RunEvidence(*(vars(found).values()), Path("runs/a"), "test", own)


def drawn(evidence, grid=None, encoding="utf-8", width=80, **options):
    buffer = io.BytesIO()
    console = Console(file=io.TextIOWrapper(buffer, encoding=encoding, newline="\n"), width=width, **options)
    draw_evidence(evidence, console, grid)
    console.file.flush()
    return buffer.getvalue().decode(encoding)


def test_the_screen_has_every_head_every_pattern_and_the_conclusion():
    evidence = of_a_run(banded(64, 4, layers=2, heads=3))
    lines = drawn(evidence).splitlines()
    assert lines[0] == "runs/a: 2 layers of 3 heads of full (100% of the pairs)"
    for layer in range(2):
        (title,) = [line for line in lines if line.startswith(f"{layer}.0 d=2")]
        assert title.split() == [f"{layer}.0", "d=2", f"{layer}.1", "d=2", f"{layer}.2", "d=2"]
    rows = [line.split() for line in lines]
    assert ["local(left=8)", "25%", "100%", "100%", "100", "100"] in rows
    assert "local(left=8) would keep 100%" in " ".join(" ".join(lines).split())


def test_a_window_stands_on_the_diagonal_of_the_square():
    lines = drawn(of_a_run(banded(64, 4))).splitlines()
    square = [line[1:-1] for line in lines if line.startswith("│")]
    assert len(square) == 8
    for row, line in enumerate(square):
        assert line[2 * row] != " "
        assert line[(2 * row + 8) % 16] == " "


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("color_system", [None, "truecolor"])
def test_squares_fit_the_terminal(width, color_system):
    text = drawn(of_a_run(softmax_weights(2, 5, 48, 48)), width=width, color_system=color_system, force_terminal=True)
    lines = [Text.from_ansi(line).plain for line in text.splitlines()]
    pictures = [line for line in lines if "▀▀▀" in line or line.startswith("│")]
    assert pictures
    assert max(map(len, pictures)) <= width


def test_without_unicode_it_is_plain_ascii():
    assert drawn(of_a_run(of_rank(3, 24, layers=2, heads=2)), encoding="ascii").isascii()


def test_a_grid_is_drawn_in_its_shape():
    text = drawn(of_a_run(softmax_weights(1, 2, 32, 32)), grid=(4, 8))
    assert "where the query at row, column (2, 4) looks" in text
    assert [line.count("│") for line in text.splitlines() if line.startswith("│")] == [4, 4]
    with pytest.raises(ValueError, match=r"grid must be of as many cells as there are tokens \(32\), got '3x4'"):
        drawn(of_a_run(softmax_weights(1, 2, 32, 32)), grid=(3, 4))


def test_where_no_pattern_saves_anything_the_table_is_left_out():
    evidence = of_a_run(softmax_weights(1, 1, 2, 2))
    evidence.kept.clear()
    text = drawn(evidence)
    assert "What a pattern would keep" not in text
    assert "No pattern that was weighed visits fewer pairs" in text
    assert len(evidence_figure(evidence).axes) == 4


def test_the_figure_has_every_head_and_three_panels(tmp_path):
    evidence = of_a_run(banded(32, 3, layers=2, heads=3), mechanisms=["local(left=3)", "local(left=9)", "strided"])
    figure = evidence_figure(evidence)
    heads = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title(loc="left") for axis in heads] == [
        f"layer {layer}, head {head}" for layer in range(2) for head in range(3)
    ]
    assert torch.equal(torch.as_tensor(heads[4].images[0].get_array()) > 0, banded(32, 3)[0, 0] > 0)
    patterns, distances, spectra = figure.axes[len(heads) :]
    (local,) = [line for line in patterns.lines if line.get_label() == "local"]
    assert local.get_ydata()[0] == pytest.approx(1)
    assert len(distances.lines) == len(spectra.lines) - 1 == 7
    save(figure, tmp_path / "a.png")
    save(evidence_figure(evidence, (4, 8)), tmp_path / "a.svg")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_heat_is_relative_to_the_largest_cell():
    weights = torch.tensor([[1.0, 3.0, 0.0, 0.0], [0.0, 0.0, 4.0, 0.0]])
    torch.testing.assert_close(heat(weights, 2, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    torch.testing.assert_close(heat(weights, 1, 4), torch.tensor([[0.25, 0.75, 1.0, 0.0]]))
    assert heat(torch.zeros(2, 2), 2, 2).tolist() == [[0, 0], [0, 0]]

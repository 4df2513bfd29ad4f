import io

import pytest
import torch
from rich.console import Console

from saccade.bench.positions import draw_positions, look_at_positions, positions_figure
from saccade.bench.positions.terminal import by_distance
from saccade.nn import POSITIONS
from saccade.nn.positions import sinusoids


def drawn(views, encoding="utf-8", width=80, **options):
    buffer = io.BytesIO()
    console = Console(file=io.TextIOWrapper(buffer, encoding=encoding, newline="\n"), width=width, **options)
    draw_positions(views, console)
    console.file.flush()
    return buffer.getvalue().decode(encoding)


def only(name, **options):
    (view,) = look_at_positions([name], **options).shown
    return view


def test_what_is_added_is_shown_with_its_likeness():
    view = only("sinusoidal", length=20)
    vectors = sinusoids(20, 64)
    torch.testing.assert_close(view.numbers, vectors.T)
    torch.testing.assert_close(view.scores[0], torch.cosine_similarity(vectors, vectors[10:11]))
    assert not view.learned
    assert view.levels.abs().max() == 1


def test_what_turns_is_shown_with_the_product_by_distance():
    view = only("rotary", length=20)
    distance = torch.arange(20, dtype=torch.float64) - 10
    angles = distance[:, None] / 10_000 ** (torch.arange(0, 64, 2) / 64)
    torch.testing.assert_close(view.scores[0], angles.cos().mean(1))


def test_what_is_added_to_scores_is_a_line_for_each_head():
    view = only("alibi", length=20)
    assert view.scores.shape == (8, 20)
    assert view.scores[:, 6].tolist() == [-(2.0**-head) * 4 for head in range(1, 9)]
    torch.testing.assert_close(view.numbers, view.scores.exp())
    assert by_distance(view, unicode=True)[:2] == [
        "distance        0       1       2       4       8",
        "head 0       0.00   -0.50   -1.00   -2.00   -4.00",
    ]


def test_all_are_shown_but_what_does_nothing():
    pytest.importorskip("torchdiffeq")
    views = look_at_positions(length=10, seed=3)
    assert [view.name for view in views.shown] == [name for name in POSITIONS if name != "none"]
    assert views.notes[1:] == ["Before training (seed 3): learned, recurrent and flow."]
    nothing = look_at_positions(["none"], length=10)
    assert nothing.notes[-1] == "Left out: none, which does nothing."
    with pytest.raises(ValueError, match="positions must be some that do something"):
        positions_figure(nothing)


def test_what_cannot_be_made_is_left_out_with_the_reason(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchdiffeq", None)
    views = look_at_positions(length=10)
    assert "flow" not in [view.name for view in views.shown]
    assert "saccade[flow]" in views.notes[-1]


def test_the_seed_draws_and_nothing_else_changes():
    before = torch.random.get_rng_state()
    assert torch.equal(only("learned", length=9).numbers, only("learned", length=9).numbers)
    assert not torch.equal(only("learned", length=9).numbers, only("learned", length=9, seed=1).numbers)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("length", [1, 5000])
def test_lengths_that_cannot_be_drawn_are_refused(length):
    with pytest.raises(ValueError, match=f"length must be from 2 to 4,096, got {length}"):
        look_at_positions(length=length)


def test_the_terminal_shows_each_with_its_scores():
    views = look_at_positions(["sinusoidal", "alibi"], length=16)
    text = drawn(views)
    assert text.count("│\n") == 8 + 8
    assert "sinusoidal: added to the input" in text
    assert "head 3" in text
    assert drawn(views, "ascii").isascii()
    assert all(len(line) <= 40 for line in drawn(views, width=40).splitlines())
    painted = drawn(views, force_terminal=True, color_system="truecolor")
    assert "194;65;12" in painted  # the first cosine row passes -0.9


def test_the_figure_has_two_rows_of_pictures():
    pytest.importorskip("matplotlib")
    figure = positions_figure(look_at_positions(["sinusoidal", "rotary", "alibi"], length=16))
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles[:3] == ["sinusoidal", "rotary", "alibi"]
    assert len(figure.axes[5].lines) == 8 + 1

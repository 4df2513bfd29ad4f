import io
import re

import pytest
import torch
from rich.console import Console

from saccade.bench.shades import FULL_INK, INK, NEGATIVE, PAPER, cells, ink, mix, shares, strength
from saccade.bench.show import look
from saccade.bench.terminal import draw


def drawn(view, encoding="utf-8", width=80, **options):
    buffer = io.BytesIO()
    console = Console(file=io.TextIOWrapper(buffer, encoding=encoding, newline="\n"), width=width, **options)
    draw(view, console)
    console.file.flush()
    return buffer.getvalue().decode(encoding).splitlines()


def picture(lines, bar):
    return [line[1:-1] for line in lines if line.startswith(bar)]


def test_half_blocks_are_the_mask():
    view = look("local(left=3, right=1)", 11)
    ink_of = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
    rows = []
    for line in picture(drawn(view), "│"):
        rows += [[ink_of[sign][half] for sign in line] for half in range(2)]
    assert torch.equal(torch.tensor(rows[:11], dtype=torch.bool), view.weights[0] != 0)
    assert not any(rows[11])


def test_painted_cells_are_the_mask_on_any_background():
    view = look("local(left=2, right=0)", 5)
    text = "\n".join(drawn(view, force_terminal=True, color_system="truecolor"))
    rows = []
    for line in text.splitlines():
        found = re.findall(r"\x1b\[38;2;([\d;]+?)(?:;48;2;([\d;]+))?m(▀+)", line)
        for half in range(2 if found else 0):
            rows.append([cell for *colors, signs in found for cell in [colors[half]] * len(signs)])
    dark, light = (";".join(map(str, color)) for color in (INK, PAPER))
    assert rows[:5] == [[dark if seen else light for seen in row] for row in (view.weights[0] != 0).tolist()]
    assert rows[5] == [""] * 5


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_without_unicode_it_is_plain_ascii(encoding):
    lines = drawn(look("Local(2) | Global(2)", 24), encoding)
    assert all(line.isascii() for line in lines)
    assert len(picture(lines, "|")) == 12
    assert picture(lines, "|")[0] == "#" * 24


@pytest.mark.parametrize("width", [10, 40, 80, 200])
@pytest.mark.parametrize("color_system", [None, "truecolor"])
def test_no_line_is_wider_than_the_terminal(width, color_system):
    view = look("local", 1024)
    console = Console(width=width, color_system=color_system, force_terminal=True, record=True, file=io.StringIO())
    draw(view, console)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < 45


def test_each_head_has_its_picture():
    lines = drawn(look("big_bird(block=2, per_head=True)", 32, heads=2))
    assert [line for line in lines if line.startswith("head")] == [
        "head 0: keys → queries ↓",
        "head 1: keys → queries ↓",
    ]
    assert len(picture(lines, "│")) == 32


def test_thin_lines_stay_visible_in_large_cells():
    mask = torch.eye(100, dtype=torch.bool).float()
    levels = ink(mask, 10, 10)
    torch.testing.assert_close(levels, torch.eye(10) * 0.1**0.5)
    assert set("".join(picture(drawn(look("local(left=0)", 1024), width=18), "│"))) == {" ", "·"}


def test_strength_is_the_share_next_to_equal_shares():
    weights = torch.tensor([[0.25, 0.75], [-1.0, 3.0], [0.0, 0.0]])
    wanted = torch.tensor([[0.25, 0.75], [-0.25, 0.75], [0.0, 0.0]])
    torch.testing.assert_close(shares(weights), wanted)
    torch.testing.assert_close(strength(wanted), wanted * 2 / FULL_INK)


def test_ink_is_the_root_of_the_mean_with_the_sign_of_the_sum():
    asked = torch.tensor([[0.25, 0.25, -0.09, 0.0], [0.25, 0.25, 0.01, 0.0], [4.0, 4.0, 0.0, 0.0], [-4.0, 4.0, 0, 0]])
    torch.testing.assert_close(ink(asked, 2, 2), torch.tensor([[0.5, -(0.025**0.5)], [1.0, 0.0]]))


@pytest.mark.parametrize("name", ["lsh", "routing", "sinkhorn", "linformer", "compressed", "linear", "mixed"])
def test_weights_that_depend_on_the_content_are_seen(name):
    signs = "".join(picture(drawn(look(name)), "│"))
    assert len(set(signs)) > 1
    assert sum(sign in "░▒▓█" for sign in signs) > 0.1 * len(signs)


def test_a_mixture_has_a_picture_for_each_part():
    lines = drawn(look("mixed", 64))
    assert [line for line in lines if line.startswith("head")] == [
        "head 0, local: keys → queries ↓",
        "head 1, linear: keys → queries ↓",
    ]


@pytest.mark.parametrize(("length", "most", "side"), [(11, 64, 11), (1024, 64, 64), (1024, 58, 32), (97, 64, 64)])
def test_cells_divide_the_length_if_they_can(length, most, side):
    assert cells(length, most) == side


def test_no_ink_is_paper():
    assert mix(0.0) == PAPER
    assert mix(1.0) == INK
    assert mix(-1.0) == NEGATIVE

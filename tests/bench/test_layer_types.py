"""Layer types next to what torch counts, and to signals that are followed from position to position."""

import io
import json

import pytest
import torch
from rich.console import Console
from torch import nn

from counting import counted_flops
from saccade.attention.patterns import Local
from saccade.bench.layer_types import Sizes, layer_types, near_pairs, table, to_json
from saccade.nn import MultiHeadAttention

SIZES = Sizes(width=12, radius=4, kernel=5)
KINDS = ("attention", "near", "recurrent", "lstm", "convolution", "dilated", "separable")


def found(n, sizes=SIZES):
    return dict(zip(KINDS, layer_types(n, sizes), strict=True))


def one_by_one(cell, x):
    """A recurrent layer, of which torch counts the cell."""
    state = None
    for token in x[0]:
        state = cell(token[None], state)


def layers(n, width, kernel):
    """What torch can count of each kind: a module of that kind, at work on a sequence."""
    x, image = torch.randn(1, n, width), torch.randn(1, width, n)
    attention, rnn, lstm = MultiHeadAttention(width, 3), nn.RNNCell(width, width), nn.LSTMCell(width, width)
    conv = nn.Conv1d(width, width, kernel, padding=kernel // 2)
    dilated = nn.Conv1d(width, width, kernel, padding=kernel * (kernel // 2), dilation=kernel)
    separable = nn.Sequential(
        nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width), nn.Conv1d(width, width, 1)
    )
    return {
        "attention": lambda: attention(x),
        "recurrent": lambda: one_by_one(rnn, x),
        "lstm": lambda: one_by_one(lstm, x),
        "convolution": lambda: conv(image),
        "dilated": lambda: dilated(image),
        "separable": lambda: separable(image),
    }


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "near"])
@pytest.mark.parametrize(("n", "width", "kernel"), [(37, 12, 5), (64, 24, 3)])
def test_a_layer_costs_what_torch_counts(kind, n, width, kernel):
    assert found(n, Sizes(width, 4, kernel))[kind].layer == counted_flops(layers(n, width, kernel)[kind])


@pytest.mark.parametrize("n", [1, 2, 4, 5, 6, 37])
def test_restricted_attention_costs_its_pairs(n):
    """Kernels compute whole tiles, so pairs are counted by the pattern, and everything else by torch."""
    pairs = int(Local(4).dense(n, n).sum())
    assert near_pairs(n, 4) == pairs
    row, dense = found(n)["near"], found(n)["attention"]
    assert row.mixing == 4 * 12 * pairs
    assert row.layer - row.mixing == dense.layer - dense.mixing


def passed(n, reaches):
    """How many layers a signal passes from the first position to the last, of layers with these relative reaches."""
    here, count = {0}, 0
    while n - 1 not in here and count < n:
        here = {i + step for i in here for step in reaches(count) if 0 <= i + step < n}
        count += 1
    return count


@pytest.mark.parametrize("n", [1, 2, 5, 6, 9, 25, 26, 41])
def test_paths_are_those_that_signals_take(n):
    rows = found(n)
    assert rows["attention"].path == passed(n, lambda layer: range(-n, n + 1))
    assert rows["near"].path == passed(n, lambda layer: range(-4, 5))
    assert rows["convolution"].path == rows["separable"].path == passed(n, lambda layer: range(5))
    assert rows["dilated"].path == passed(n, lambda layer: range(0, 5 * 5**layer, 5**layer))
    assert rows["recurrent"].path == rows["lstm"].path == 1 + passed(n, lambda layer: (1,))


def test_only_recurrent_layers_take_steps():
    assert [row.sequential for row in layer_types(37, SIZES)] == [1, 1, 37, 37, 1, 1, 1]


def test_the_table_shows_every_length_and_fits():
    console = Console(file=io.StringIO(), width=80)
    console.print(table((2048, 512)))
    lines = console.file.getvalue().splitlines()
    shown = [line.split() for line in lines if "n^2" in line]
    assert [row[0] for row in shown] == ["512", "2,048"]
    assert shown[0][-6:] == ["537", "M", "1.61", "G", "1", "1"]
    assert max(map(len, lines)) <= 80


def test_json_has_a_record_for_each_type_and_length():
    read = json.loads(to_json((8, 16), SIZES))
    assert read["sizes"] == {"width": 12, "radius": 4, "kernel": 5}
    assert len(read["layer_types"]) == 2 * len(KINDS)
    assert read["layer_types"][0]["mixing"] == 4 * 8 * 8 * 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be a whole number, at least 1, got 0"),
        ({"radius": 0}, "radius must be a whole number, at least 1, got 0"),
        ({"kernel": 1}, "kernel must be a whole number, at least 2, got 1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Sizes(**options)


def test_no_positions_are_refused():
    with pytest.raises(ValueError, match="n must be a whole number, at least 1, got 0"):
        layer_types(0)

import io
import json

import pytest
from rich.console import Console

from saccade.bench.choice import read_mechanisms
from saccade.bench.cost_report import cost_figure, costs, heading, human, sentences, table, to_json
from saccade.bench.model_cost import Shape, model_cost

FOUND = costs(read_mechanisms("full, local(left=8), linear"), (4096, 512))


def text(renderable, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 "),
        (999, "999 "),
        (1000, "1.00 k"),
        (12345, "12.3 k"),
        (999_499, "999 k"),
        (999_600, "1.00 M"),
        (38_700_000_000, "38.7 G"),
        (9_999_999, "10.0 M"),
        (1.5e15, "1.50 P"),
        (2e19, "20000 P"),
    ],
)
def test_numbers_have_three_digits_and_a_letter(number, shown):
    assert human(number) == shown


def test_table_has_a_row_for_each_mechanism_and_length():
    lines = text(table(FOUND)).splitlines()
    shown = [line.split() for line in lines if any(name in line for name in ("full", "local", "linear"))]
    assert shown[0] == ["512", "full", "3.22", "G", "3.22", "G", "22.5", "G", "14.3%", "102", "MB", "214", "MB"]
    assert [row[0] for row in shown] == ["512", "local(left=8)", "linear", "4,096", "local(left=8)", "linear"]
    assert max(map(len, lines)) <= 80


def test_heading_says_the_model_and_its_weights():
    assert heading(FOUND).splitlines() == [
        "encoder of 6 layers, width 512, 8 heads, hidden 2,048; batch 1",
        "18.9 M parameters: 75.7 MB, or 303 MB with gradients and Adam's averages",
        "operations a token: projections 12.6 M, feed-forward 25.2 M",
    ]
    shape = Shape(layers=1, kv_heads=2, vocabulary=30_000, classes=3, extra_tokens=2)
    words = heading(costs(read_mechanisms("linear", baseline=False), (8,), shape, batch=3, causal=True))
    parts = "1 layer, width 512, 8 heads, hidden 2,048, 2 key heads, vocabulary 30,000, 3 classes, 2 extra tokens"
    assert f"{parts}, causal; batch 3" in words
    assert words.endswith("operations a token: projections 1.31 M, feed-forward 4.19 M")


def test_sentences_put_alike_mechanisms_together():
    assert sentences(FOUND) == [
        "attention takes more than half of the operations from n = 3,073 on: full",
        "attention takes more than half of the operations at no length: local(left=8), linear",
    ]


def test_json_holds_the_exact_numbers():
    found = json.loads(to_json(FOUND))
    assert found["model"]["hidden"] == 2048
    assert found["dominance"]["full"] == {"length": 3073, "never": False}
    assert [(row["length"], row["mechanism"]) for row in found["costs"]][:2] == [(512, "full"), (512, "local(left=8)")]
    cost, row = model_cost("local(left=8)", 4096), found["costs"][4]
    assert row["flops"]["attention"] == cost.attention < row["flops"]["attention_computed"] == cost.computed
    assert row["flops"]["model"] == cost.flops
    assert row["training_bytes"] == cost.training_bytes


def test_the_figure_shows_the_shares_and_where_half_is_passed():
    (axis,) = cost_figure(FOUND).axes
    assert list(axis.lines[0].get_xdata()) == [512, 4096]
    assert list(axis.lines[0].get_ydata()) == [100 * model_cost("full", n).share for n in (512, 4096)]
    assert {each.get_text() for each in axis.texts} == {"full", "local(left=8)", "linear", "n = 3,073"}
    (short,) = cost_figure(costs(read_mechanisms("full"), (256, 512))).axes
    assert {each.get_text() for each in short.texts} == {"full"}


def test_refuses_lengths():
    with pytest.raises(ValueError, match="each only once"):
        costs(read_mechanisms("full"), (8, 8))

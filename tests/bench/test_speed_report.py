import io
import json
from itertools import pairwise

import pytest
import torch
from rich.console import Console
from speeds import measured, speeds

from saccade.bench.race import Progress
from saccade.bench.speed_report import (
    heading,
    progress_table,
    sentences,
    speed_figure,
    table,
    to_jsonl,
    to_records,
)
from saccade.machine import machine

FOUND = speeds(
    *(measured("full", n, n / 1e3, computed=n) for n in (512, 1024)),
    measured("local", 512, 1.024, computed=300),
    measured("local", 1024, 0.256, computed=256),
    measured("linear", 512, 0.513, computed=10),
    measured("linear", 1024, 1.0, status="skipped", reason="it would take about 99 seconds", forward=(), both=()),
)


def text(renderable, width=100):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def rows(printed):
    return [line.split() for line in printed.splitlines() if "local" in line or "linear" in line or "full" in line]


def test_table_shows_times_speed_and_error():
    full, local, linear, full_long, local_long, linear_long = rows(text(table(FOUND)))
    assert full == ["512", "full", "172.4", "ms", "517.1", "ms", "1.00x", "1.00x", "7.0", "MB", "3e-07"]
    assert local[1:] == ["344.7", "ms", "1.03", "s", "0.50x", "1.71x", "7.0", "MB", "3e-07"]
    assert linear[-4:] == ["51.20x", "7.0", "MB", "3e-07*"]
    assert full_long[0] == "1,024"
    assert local_long[5:7] == ["4.00x", "4.00x"]
    assert linear_long == ["linear", "skipped"]


def test_rounds_that_do_not_agree_are_marked():
    tie = measured("local", 512, 0.512, both=(0.5, 0.6, 0.52))
    (_, local) = rows(text(table(speeds(FOUND.rows[512, "full"], tie))))
    assert "~1.00x" in local


def test_forward_alone_has_no_column_for_both():
    printed = text(table(speeds(FOUND.rows[512, "full"], forward_only=True)))
    assert "backward" not in printed
    assert rows(printed)[0][2:5] == ["172.4", "ms", "1.00x"]


def test_a_narrow_terminal_still_shows_every_name_whole():
    printed = text(table(speeds(measured("full", 8192, 1.0), measured("longformer(window=512)", 8192, 0.5))), 80)
    assert max(map(len, printed.splitlines())) <= 80
    shown = "".join(line[7:24].strip() for line in printed.splitlines()[3:])
    assert "longformer(window=512)" in shown.replace(" ", "")


def test_sentences_say_where_it_pays_and_what_is_missing():
    assert sentences(FOUND) == [
        "local: faster than full from about n = 650 on",
        "linear: not faster than full at n = 512, the longest that both were measured at",
        "linear at n = 1,024 skipped: it would take about 99 seconds",
    ]
    always = speeds(measured("full", 8, 2.0), measured("local", 8, 1.0))
    assert sentences(always) == ["local: faster than full at every length that was measured"]


def test_what_was_stopped_is_not_shown_as_measured():
    stopped = {"status": "stopped", "forward": (), "both": ()}
    found = speeds(measured("full", 8, 1.0), measured("full", 16, 1.0, **stopped), measured("full", 32, 1.0, **stopped))
    assert "16" not in text(table(found))
    assert sentences(found) == ["stopped before n = 16"]
    assert [record["length"] for record in to_records(found)] == [8]


def test_each_record_stands_alone():
    records = [json.loads(line) for line in to_jsonl(FOUND).splitlines()]
    assert records == json.loads(json.dumps(to_records(FOUND)))
    assert [(each["length"], each["mechanism"]) for each in records] == list(FOUND.rows)
    first, skipped = records[0], records[-1]
    assert first["machine"] == machine()
    assert first["versions"]["torch"] == torch.__version__
    assert first["setting"]["head_dim"] == 64
    assert first["seed"] == 0
    assert first["median_seconds"] == pytest.approx(0.512 * 1.01)
    assert records[2]["speed_to_baseline"]["value"] == pytest.approx(0.5)
    assert records[2]["predicted_speed"] == pytest.approx(512 / 300)
    assert (skipped["status"], skipped["median_seconds"]) == ("skipped", None)


def test_heading_says_what_and_where():
    assert "batch 1, 8 heads of 64, fp32" in heading(FOUND)
    assert f"torch {torch.__version__}" in heading(FOUND)


def test_progress_shows_one_length_and_the_time_left():
    printed = text(progress_table(Progress(FOUND, 512, "n = 512: 3 rounds", ", round 2: local", 75.0)))
    assert "n = 512: 3 rounds, round 2: local · 1:15 left in all" in printed
    assert "1,024" not in printed


def test_the_figure_has_a_line_for_each_mechanism_with_its_speed():
    figure = speed_figure(FOUND)
    (axis,) = figure.axes
    lines = {tuple(line.get_xdata()): list(line.get_ydata()) for line in axis.lines}
    assert lines[512,] == [pytest.approx(0.513e3 * 1.01)]
    assert list(axis.lines[0].get_ydata()) == pytest.approx([512 * 1.01, 1024 * 1.01])
    assert axis.get_xscale() == axis.get_yscale() == "log"
    assert {each.get_text() for each in axis.texts} == {"full", "local 4.0x", "linear 1.0x"}
    figure.canvas.draw()
    heights = sorted(each.get_window_extent().y0 for each in axis.texts)
    tall = axis.texts[0].get_window_extent().height
    assert all(upper - lower >= 0.95 * tall for lower, upper in pairwise(heights))

import io
import math
from dataclasses import replace

from rich.console import Console
from rows import row

from saccade.bench.live import State, live, table
from saccade.bench.report import Row

WAITING = Row("local", step_seconds=(0.5,) * 7, peak_bytes=7_000_000)
STATE = State((row("full", range(300)), WAITING), "training local", 200, "local", 50, 1.234, (0.0, 75.0))


def text(renderable):
    console = Console(file=io.StringIO(), width=120)
    console.print(renderable)
    return console.file.getvalue()


def test_table_shows_step_loss_speed_and_time_left():
    lines = text(table(STATE)).splitlines()
    (full,) = (line.split() for line in lines if "full" in line)
    (local,) = (line.split() for line in lines if line.lstrip().startswith("local"))
    assert [cell for cell in full if cell != "│"] == ["full", "200/200", "0.500", "0.97", "75.0%", "±", "2.2", "100"]
    assert [cell for cell in local if cell != "│"] == ["local", "50/200", "1.234", "2.00", "1:15", "training", "7"]
    assert any("training local · 1:15 left in all" in line for line in lines)


def test_time_left_is_unknown_before_speeds_are():
    unknown = replace(STATE, rows=(Row("full"), Row("local")), seconds_left=(math.nan, math.nan))
    assert "?:?? left in all" in text(table(unknown))


def test_without_a_terminal_it_is_a_line_a_turn():
    console = Console(file=io.StringIO(), width=80)
    with live(console) as show:
        show(STATE)
        show(replace(STATE, step=51))
        show(replace(STATE, doing="testing local"))
    assert console.file.getvalue().splitlines() == [
        "training local (1:15 left in all)",
        "testing local (1:15 left in all)",
    ]


def test_in_a_terminal_it_is_a_table():
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with live(console) as show:
        show(STATE)
    assert "200/200" in console.file.getvalue()

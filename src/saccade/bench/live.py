"""The live table of a comparison: which mechanism is at which step, how fast, and how long it will still take."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from saccade.bench.follow import clock, follow
from saccade.bench.report import Row


@dataclass(frozen=True, eq=False)
class State:
    """How far a comparison is.

    Attributes:
        rows: what is known of each mechanism.
        doing: what is going on, in words.
        steps: training steps in all, of each mechanism.
        running: the mechanism that is being trained, if any.
        step: its last step.
        loss: of that step, in nats.
        seconds_left: of each mechanism that is not done: an estimate, NaN before its speed is known.
    """

    rows: tuple[Row, ...]
    doing: str
    steps: int
    running: str | None = None
    step: int = 0
    loss: float = math.nan
    seconds_left: tuple[float, ...] = ()

    @property
    def left(self) -> float:
        """Seconds in all."""
        return math.fsum(self.seconds_left)


OnChange = Callable[[State], object]


def live(console: Console) -> AbstractContextManager[OnChange]:
    """The table of a comparison, for as long as it runs."""
    return follow(console, table)


def table(state: State) -> Table:
    """The state as a table."""
    caption = f"{state.doing} · {clock(state.left)} left in all · Ctrl-C stops and keeps what is done"
    columns = ("mechanism", "step", "loss", "steps/s", "time left", "test accuracy", "peak MB")
    drawn = Table(caption=caption, caption_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        drawn.add_column(column, justify="left" if column == "mechanism" else "right")
    for row, left in zip(state.rows, state.seconds_left, strict=True):
        runs = row.mechanism == state.running
        drawn.add_row(*_cells(row, state, left, runs), style="bold" if runs else "")
    return drawn


def _cells(row: Row, state: State, left: float, runs: bool) -> tuple[str, ...]:
    step = state.step if runs else state.steps if row.status == "done" else 0
    loss = state.loss if runs else row.loss
    score = f"{row.accuracy:.1%} ± {row.standard_error * 100:.1f}" if row.right is not None else row.status
    return (
        row.mechanism,
        f"{step}/{state.steps}",
        "" if loss is None else f"{loss:.3f}",
        f"{row.steps_per_second:.2f}" if row.step_seconds else "",
        clock(left) if row.status == "waiting" else "",
        "training" if runs else score,
        "" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}",
    )

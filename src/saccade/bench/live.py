"""Tables that follow work at the terminal, and that of a comparison: who is at which step, how fast, how long still."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

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


@runtime_checkable
class Progress(Protocol):
    """What can be followed."""

    @property
    def doing(self) -> str:
        """What is going on, in words."""
        ...

    @property
    def left(self) -> float:
        """Seconds in all: an estimate, NaN where there is none."""
        ...


Followed = TypeVar("Followed", bound=Progress)


@contextmanager
def follow(console: Console, draw: Callable[[Followed], Table]) -> Iterator[Callable[[Followed], object]]:
    """A table that follows some work while entered; where there is no terminal, a line whenever something begins."""
    if not console.is_terminal:
        yield _lines(console)
        return
    with Live(console=console, auto_refresh=False, transient=True) as screen:
        shown, last = -math.inf, ""

        def show(state: Followed) -> None:
            nonlocal shown, last
            if state.doing != last or time.monotonic() - shown > 0.2:
                screen.update(draw(state), refresh=True)
                shown, last = time.monotonic(), state.doing

        yield show


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


def _lines(console: Console) -> Callable[[Progress], None]:
    """One line whenever something else begins."""
    last = ""

    def show(state: Progress) -> None:
        nonlocal last
        if state.doing != last:
            console.print(f"{state.doing} ({clock(state.left)} left in all)", highlight=False)
            last = state.doing

    return show


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return "?:??" if math.isnan(seconds) else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

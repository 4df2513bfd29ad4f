"""Long work at the terminal: a table that follows it, or a line whenever something else begins."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar, runtime_checkable

from rich.console import Console
from rich.live import Live
from rich.table import Table


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

"""The progress bar: step, loss, steps per second and time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

OnStep = Callable[[int, float, float], object]
"""Called after each step with the step (from 1), its loss, and the seconds it took."""


@contextmanager
def progress_bar(steps: int, done: int = 0) -> Iterator[OnStep]:
    """A bar in the terminal while entered; it yields the function that moves it.

    Args:
        steps: steps in all.
        done: steps that an earlier run has done.
    """
    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    finished = done == steps  # and resumed: no loss, rate or time to show
    with Progress(*columns, disable=finished) as progress:
        if finished:
            progress.console.print(f"all {steps} steps were done before", highlight=False)
        task = progress.add_task("train", total=steps, completed=done, loss="", rate="")  # none before a step
        smooth = 0.0

        def move(step: int, loss: float, seconds: float) -> None:
            nonlocal smooth
            smooth = 0.9 * smooth + 0.1 * seconds if smooth else seconds
            rate = f"{1 / max(smooth, 1e-9):.2f} steps/s"
            progress.update(task, completed=step, loss=f"loss {loss:.3f}", rate=rate)

        yield move

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
        TextColumn("loss {task.fields[loss]:.3f}"),
        TextColumn("{task.fields[rate]:.2f} steps/s"),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("train", total=steps, completed=done, loss=float("nan"), rate=0.0)
        smooth = 0.0

        def move(step: int, loss: float, seconds: float) -> None:
            nonlocal smooth
            smooth = 0.9 * smooth + 0.1 * seconds if smooth else seconds
            progress.update(task, completed=step, loss=loss, rate=1 / max(smooth, 1e-9))

        yield move

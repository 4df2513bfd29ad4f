"""The pictures of a sweep: speed, score and memory as bubbles, and the score of every mechanism and seed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from saccade.bench.bubbles import DENSE, GREY, OTHER, comparison_figure
from saccade.bench.choice import BASELINE
from saccade.bench.plots import new_figure
from saccade.bench.report import Comparison, Row
from saccade.bench.sweep.standing import Standing, error, pooled_spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 2


def bubbles(task: str, rows: Sequence[Standing]) -> "Figure | None":
    """Speed across, mean score up, the area of a bubble is memory; `None` where nothing has score and speed.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    shown = [row for row in rows if row.scores and row.speed]
    if not shown:
        return None
    dense = BASELINE if any(row.mechanism == BASELINE for row in shown) else None
    found = Comparison(tuple(map(_row, shown)), dense, shown[0].majority, {"data": task})
    return comparison_figure(found, width=10.0, height=6.4) if len(shown) > 6 else comparison_figure(found)


def scores_figure(tasks: Mapping[str, Sequence[Standing]]) -> "Figure | None":
    """For each task a line for each mechanism: a dot a seed, the mean with its standard error, and guessing.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    scored = {task: found for task, rows in tasks.items() if (found := [row for row in rows if row.scores])}
    if not scored:
        return None
    names = list(scored)
    lines = [names[i : i + ACROSS] for i in range(0, len(names), ACROSS)]
    heights = [max(len(scored[name]) for name in line) + 2.5 for line in lines]
    figure = new_figure(11.0 if len(names) > 1 else 6.0, 0.27 * sum(heights))
    axes = figure.subplots(len(lines), min(ACROSS, len(names)), squeeze=False, height_ratios=heights)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, names, strict=False):
        _draw(axis, name, scored[name])
    figure.supxlabel(
        "test accuracy, % (bar: ± standard error; small dots: seeds; dashed: the commonest class)", fontsize=9
    )
    return figure


def _row(row: Standing) -> Row:
    """As a comparison knows it: seconds in units of dense attention's, round by round."""
    assert row.speed is not None
    rounds = zip(row.speed["step_seconds"], row.speed["dense_step_seconds"], strict=True)
    seconds = tuple(1.0 if row.mechanism == BASELINE else own / dense for own, dense in rounds)
    right = torch.arange(row.examples) < round(row.score * row.examples)
    return Row(row.mechanism, "done", peak_bytes=row.speed["peak_bytes"], step_seconds=seconds, right=right)


def _draw(axis: "Axes", task: str, rows: Sequence[Standing]) -> None:
    spread = pooled_spread(rows)
    for place, row in enumerate(reversed(rows)):
        color = DENSE if row.mechanism == BASELINE else OTHER
        axis.errorbar(row.score * 100, place, xerr=error(row, spread) * 100, color=color, capsize=2, linewidth=1)
        axis.scatter([score * 100 for score in row.scores], [place] * len(row.scores), s=9, color=color, alpha=0.5)
        axis.scatter(row.score * 100, place, s=26, color=color, zorder=3)
    axis.axvline(rows[0].majority * 100, linestyle="--", linewidth=1, color=GREY)
    axis.set_yticks(range(len(rows)), [row.mechanism for row in reversed(rows)], fontsize=8)
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.set_title(task, fontsize=10, loc="left")
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#eeeeee", zorder=0)

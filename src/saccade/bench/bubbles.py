"""The picture of a comparison: speed across, score up, the area of a bubble is peak memory."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from saccade.bench.plots import new_figure
from saccade.bench.report import Comparison, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

LARGEST = 1800
"""Area of the largest bubble in square points."""
DENSE, OTHER, GREY = "#d55e00", "#0072b2", "#555555"
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


def comparison_figure(found: Comparison, width: float = 7.2, height: float = 4.6) -> "Figure":
    """The mechanisms that were trained to the end, as bubbles; width and height in inches.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    figure = new_figure(width, height)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    rows = [row for row in found.rows if row.right is not None]
    axis = figure.subplots()
    places = {row: (_speed(found, row), row.accuracy * 100) for row in rows}
    areas = _areas(rows)
    for row, (x, y) in places.items():
        color = DENSE if row.mechanism == found.baseline else OTHER
        axis.scatter(x, y, s=areas[row], color=color, alpha=0.35, edgecolors=color, linewidths=1.5, zorder=3)
        axis.errorbar(x, y, yerr=row.standard_error * 100, color=color, capsize=3, linewidth=1, zorder=4)
    _axes(axis, found, places)
    # Places and sizes are known only after the figure was drawn once.
    FigureCanvasAgg(figure).draw()
    _label(axis, found, places, areas)
    return figure


def _areas(rows: Sequence[Row]) -> dict[Row, float]:
    """Square points; all alike where the device does not tell its memory."""
    peaks = [row.peak_bytes for row in rows if row.peak_bytes is not None]
    if len(peaks) < len(rows):
        return dict.fromkeys(rows, LARGEST / 4)
    return {row: LARGEST * peak / max(peaks) for row, peak in zip(rows, peaks, strict=True)}


def _speed(found: Comparison, row: Row) -> float:
    ratio = found.speed(row)
    return ratio.value if ratio else row.steps_per_second


def _axes(axis: "Axes", found: Comparison, places: dict[Row, tuple[float, float]]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    speeds, scores = zip(*places.values(), strict=True)
    majority = found.majority_share * 100
    if max(speeds) > 3 * min(speeds):
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda speed, _: f"{speed:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    compared = all(found.speed(row) for row in places)
    axis.set_xlabel(f"training speed, times that of {found.baseline}" if compared else "training steps per second")
    axis.set_ylabel("test accuracy, % (bar: ± standard error)")
    axis.margins(x=0.25)
    low, high = min(*scores, majority), max(*scores, majority)
    room = max(0.18 * (high - low), 2)
    axis.set_ylim(max(low - room, -2), high + 1.4 * room)
    axis.axhline(majority, linestyle="--", linewidth=1, color=GREY)
    where = {"xy": (0.01, majority), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    words = f"always the commonest class: {majority:.1f}%"
    axis.annotate(words, xytext=(2, 5), **where, fontsize=8, color=GREY, bbox=paper)
    if compared:
        axis.axvline(1, linestyle=":", linewidth=1, color=DENSE)
    area = (
        "bubble area = peak memory of a training step" if all(row.peak_bytes for row in places) else "speed and score"
    )
    axis.set_title(f"{found.facts.get('data', 'data')}: {area}", fontsize=10, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#eeeeee", zorder=0)


def _label(axis: "Axes", found: Comparison, places: dict[Row, tuple[float, float]], areas: dict[Row, float]) -> None:
    """Name and memory beside each bubble, where they cover the least of other bubbles and labels."""
    taken = [_bubble(axis, place, areas[row]) for row, place in places.items()]
    for row, place in places.items():
        dense = " (dense)" if row.mechanism == found.baseline else ""
        text = f"{row.mechanism}{dense}" + ("" if row.peak_bytes is None else f"\n{row.peak_bytes / 1e6:.0f} MB")
        label = axis.annotate(
            text, place, xytext=(0, 0), textcoords="offset points", fontsize=9, zorder=5, annotation_clip=False
        )
        radius = math.sqrt(areas[row] / math.pi)
        tries = [(reach, *direction) for reach in (radius + 4, radius + 16, radius + 32) for direction in DIRECTIONS]
        best = min(tries, key=lambda each: (_covered(_move(label, *each), taken, axis.bbox), each[0]))
        taken.append(_move(label, *best))
        if best[0] > radius + 4:
            line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkA": 2, "shrinkB": 0}
            axis.annotate("", place, label.get_position(), textcoords="offset points", arrowprops=line, zorder=4)


def _bubble(axis: "Axes", place: tuple[float, float], area: float) -> "Bbox":
    from matplotlib.transforms import Bbox

    (x, y), radius = axis.transData.transform(place), math.sqrt(area / math.pi) * axis.figure.dpi / 72
    return Bbox([[x - radius, y - radius], [x + radius, y + radius]])


def _move(label: "Annotation", reach: float, right: int, up: int) -> "Bbox":
    """Put the label on one side of its bubble, and say where it is then."""
    scale = reach / math.hypot(right, up)
    label.set_position((right * scale, up * scale))
    label.set_horizontalalignment(("right", "center", "left")[right + 1])
    label.set_verticalalignment(("top", "center", "bottom")[up + 1])
    return label.get_window_extent()


def _covered(box: "Bbox", taken: list["Bbox"], inside: "Bbox") -> float:
    """How many pixels of others a label covers, or of itself lie outside the axes."""
    from matplotlib.transforms import Bbox

    overlaps = [Bbox.intersection(box, other) for other in taken]
    visible = Bbox.intersection(box, inside)
    area = box.width * box.height
    outside = area - (visible.width * visible.height if visible else 0)
    return sum(overlap.width * overlap.height for overlap in overlaps if overlap) + outside

"""Lines over the length of the input, each with its name at its end: what the plots of `cost` and `bench` share."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from statistics import fmean
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from saccade.bench.choice import BASELINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DENSE, GREY = "#d55e00", "#555555"
OTHERS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Okabe and Ito's colours, which every eye can tell apart."""
MARKERS = "sD^vPX*"
"""One more than there are colours, so that it takes many lines until two look alike."""
WIDEST = 24
"""Letters of a name in one line."""
LINE = 0.045
"""Height of a line of a name, as a share of the axes."""


def styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each mechanism; dense attention always has its own."""
    others = [name for name in names if name != BASELINE]
    found = {name: {"color": OTHERS[i % 6], "marker": MARKERS[i % 7]} for i, name in enumerate(others)}
    return {**found, BASELINE: {"color": DENSE, "marker": "o"}}


def lengths_axis(axis: "Axes", lengths: Sequence[int]) -> None:
    """Lengths across, by factors of two, with room on the right for the names."""
    from matplotlib.ticker import NullLocator

    axis.set_xscale("log", base=2)
    ticks = lengths if len(lengths) <= 10 else lengths[:: -(-len(lengths) // 10)]
    axis.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("length of the input")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#eeeeee", zorder=0)
    axis.set_axisbelow(True)


def label_ends(axis: "Axes", ends: Mapping[str, tuple[int | float, int | float]], colors: Mapping[str, str]) -> None:
    """Names to the right of where their lines end, moved apart where they would cover each other.

    Args:
        axis: with its limits and scales as they will stay.
        ends: the last point of each line.
        colors: of each line.
    """
    to_share = axis.transData + axis.transAxes.inverted()
    lines = {text: wrap(text, WIDEST) for text in ends}
    order = sorted(ends, key=lambda text: ends[text][1])
    wanted = [float(to_share.transform(ends[text])[1]) for text in order]
    places = apart(wanted, [LINE * len(lines[text]) for text in order])
    for text, place in zip(order, places, strict=True):
        style = {"fontsize": 8.5, "va": "center", "color": colors[text], "annotation_clip": False}
        axis.annotate("\n".join(lines[text]), (1.015, place), xycoords="axes fraction", **style)


def apart(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """The middles of boxes in a column, as near as can be to where they are wanted, none covering another.

    Args:
        wanted: where the middle of each should be, ascending.
        heights: of each.
    """
    # Boxes that would touch stand together, around the mean of where they would stand alone.
    groups: list[tuple[float, list[int]]] = []
    for box, (middle, height) in enumerate(zip(wanted, heights, strict=True)):
        start, members = middle - height / 2, [box]
        while groups and start < groups[-1][0] + sum(heights[i] for i in groups[-1][1]):
            members = [*groups.pop()[1], *members]
            below = list(accumulate((heights[i] for i in members), initial=0.0))
            start = fmean(wanted[i] - heights[i] / 2 - under for i, under in zip(members, below, strict=False))
        groups.append((max(start, 0.0), members))
    places = []
    for start, members in groups:
        below = accumulate((heights[i] for i in members), initial=start)
        places += [under + heights[i] / 2 for i, under in zip(members, below, strict=False)]
    return places

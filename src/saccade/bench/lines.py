"""Lines over the length of the input, each with its name at its end: what the plots of `cost` and `bench` share."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from saccade.bench.choice import BASELINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DENSE, GREY = "#d55e00", "#555555"
OTHERS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Okabe and Ito's colours, which every eye can tell apart."""
MARKERS = "osD^vPX"
WIDEST = 24
"""Letters of a name in one line."""
APART = 0.052
"""How far apart two names must be, as a share of the height."""


def styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each mechanism; dense attention always has its own."""
    others = [name for name in names if name != BASELINE]
    found = {name: {"color": OTHERS[i % 6], "marker": MARKERS[1 + i % 6]} for i, name in enumerate(others)}
    return {**found, BASELINE: {"color": DENSE, "marker": MARKERS[0]}}


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
    heights = {text: float(to_share.transform(end)[1]) for text, end in ends.items()}
    low = -1.0
    for text, height in sorted(heights.items(), key=lambda item: item[1]):
        room = APART * len(wrap(text, WIDEST))
        low = max(height, low + room)
        style = {"fontsize": 8.5, "va": "center", "color": colors[text], "annotation_clip": False}
        axis.annotate("\n".join(wrap(text, WIDEST)), (1.015, low), xycoords="axes fraction", **style)

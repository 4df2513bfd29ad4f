"""Position methods as a figure: above, the numbers of each position; below, scores by key."""

from textwrap import wrap
from typing import TYPE_CHECKING

from saccade.bench.plots import ink_colors, new_figure
from saccade.bench.positions.views import PositionView, Views
from saccade.errors import must_be

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE, GREY = "#084081", "#666666"


def positions_figure(views: Views) -> "Figure":
    """The methods side by side.

    Raises:
        ValueError: there is none to draw; the message says why.
        ModuleNotFoundError: matplotlib is not installed.
    """
    if not views.shown:
        raise ValueError(must_be("positions", "some that do something and can be made", views.left_out))
    width = 2.3 * max(2, len(views.shown))
    notes = [line for note in views.notes for line in wrap(note, int(16 * width))]
    figure = new_figure(width, 4.3 + 0.15 * len(notes))
    axes = figure.subplots(2, len(views.shown), squeeze=False, height_ratios=(1.15, 1))
    for column, view in enumerate(views.shown):
        _draw_numbers(axes[0][column], view)
        _draw_scores(axes[1][column], view)
    figure.supxlabel("\n".join(notes), x=0.01, ha="left", fontsize=8, color="#444444")
    return figure


def _draw_numbers(axis: "Axes", view: PositionView) -> None:
    rows, n = view.levels.shape
    axis.set_title(view.name, fontsize=10, fontweight="bold", loc="left", pad=16)
    above = {"xytext": (0, 4), "textcoords": "offset points", "fontsize": 7.5, "color": "#444444"}
    axis.annotate(view.does, (0, 1), xycoords="axes fraction", **above).set_in_layout(False)
    how = {"cmap": ink_colors(), "vmin": -1, "vmax": 1, "aspect": "auto", "interpolation": "nearest"}
    axis.imshow(view.levels.numpy(), extent=(0, n, rows, 0), **how)
    axis.set_ylabel(view.rows, fontsize=8)
    axis.set_yticks([0, rows])
    axis.yaxis.set_label_coords(-0.07, 0.5)
    _positions_below(axis, n, "positions" if view.rows == "channels" else "keys")


def _draw_scores(axis: "Axes", view: PositionView) -> None:
    n = view.scores.shape[1]
    axis.axvline(view.middle, color="#c8d0da", linewidth=0.8)
    for line in view.scores:
        axis.plot(range(n), line.tolist(), color=LINE, linewidth=0.9, alpha=1.0 if len(view.scores) == 1 else 0.6)
    axis.set_title(view.measure, fontsize=7.5, color="#444444", loc="left", pad=4)
    axis.set_xlim(0, n)
    _positions_below(axis, n, "keys")


def _positions_below(axis: "Axes", n: int, name: str) -> None:
    axis.set_xlabel(name, fontsize=8, labelpad=-6)
    axis.set_xticks([0, n], ["0", f"{n:,}"])
    axis.tick_params(labelsize=7, length=2, colors=GREY)
    for spine in axis.spines.values():
        spine.set_color("#c8d0da")

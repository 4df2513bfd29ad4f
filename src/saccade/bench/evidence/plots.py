"""The evidence of a run as a figure: a picture for each head, and below them patterns, distances and spectra."""

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

from saccade.bench.evidence.candidates import label
from saccade.bench.evidence.gather import RunEvidence
from saccade.bench.evidence.heads_figure import WIDTH, draw_heads, inches_down
from saccade.bench.evidence.heat_map import Grid, heat_map, middle
from saccade.bench.evidence.report import ENOUGH, LOW, conclusion, facts
from saccade.bench.plots import new_figure
from saccade.shapes import Float, Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS, TITLE = 4.2, 1.0
"""Inches down for the three panels, and for the words above."""

GUIDE = {"color": "#aab4c0", "linewidth": 1, "linestyle": "--"}


def evidence_figure(evidence: RunEvidence, grid: Grid | None = None) -> "Figure":
    """All of it in one figure.

    Args:
        evidence: what was found.
        grid: height and width, where the examples are grids: heat maps of the query in the middle are drawn in
            place of queries by keys.

    Raises:
        ValueError: a grid of another size than the examples.
        ModuleNotFoundError: matplotlib is not installed.
    """
    maps = evidence.means.mean if grid is None else heat_map(evidence.means.mean, grid)
    figure = new_figure(WIDTH, inches_down(maps) + PANELS + TITLE)
    figure.suptitle(f"{facts(evidence)}\n{fill(conclusion(evidence), 150)}", fontsize=9, x=0.01, ha="left")
    parts: Any = figure.subfigures(2, 1, height_ratios=[inches_down(maps), PANELS])
    above, below = parts
    draw_heads(above, maps, None if grid is None else middle(grid))
    patterns, distances, spectra = below.subplots(1, 3)
    _draw_patterns(patterns, evidence)
    _draw_distances(distances, evidence)
    _draw_spectra(spectra, evidence)
    return figure


def _draw_patterns(axis: "Axes", evidence: RunEvidence) -> None:
    """Weight kept over pairs visited; on the diagonal a pattern keeps what any pairs would."""
    axis.plot([0, 1], [0, 1], label="as much as any pairs", **GUIDE)
    by_name: dict[str, list[tuple[float, float, float]]] = {}
    for each in sorted(evidence.kept, key=lambda each: each.pairs):
        point = each.pairs, each.mean, each.best.mean().item()
        by_name.setdefault(label(each.mechanism).partition("(")[0], []).append(point)
    for name, points in by_name.items():
        pairs, kept, best = zip(*points, strict=True)
        axis.plot(pairs, kept, marker="o", markersize=4, linewidth=1, label=name)
        axis.plot(pairs, best, marker="_", color="#8a94a0", linewidth=0)
    axis.plot([], [], marker="_", color="#8a94a0", linewidth=0, label="as many of the heaviest keys")
    most = max([0.5, *(each.pairs for each in evidence.kept)])
    axis.set(xlim=(0, 1.03 * most), ylim=(0, 1.02), xlabel="share of the pairs", ylabel="share of the weight kept")
    _finish(axis, "What a pattern would keep")


def _draw_distances(axis: "Axes", evidence: RunEvidence) -> None:
    means = evidence.means
    axis.axhline(1 / evidence.spectra.length, **GUIDE)
    _draw_lines(axis, range(1 - means.longest, means.longest), means.mean_by_distance)
    axis.set_yscale("log")
    # Far below what all keys alike would get, the differences say nothing.
    lowest = max(axis.get_ylim()[0], 1e-3 / evidence.spectra.length)
    axis.set_ylim(lowest, 1.5 * means.mean_by_distance.max().item())
    axis.set(xlabel="distance, query - key", ylabel="mean weight (dashed: all keys alike)")
    _finish(axis, "Mean weight by distance")


def _draw_spectra(axis: "Axes", evidence: RunEvidence) -> None:
    curve, n = evidence.spectra.curve, evidence.spectra.length
    axis.axhline(ENOUGH, **GUIDE)
    axis.axvline(1 / LOW, **GUIDE)
    points = curve.shape[-1]
    _draw_lines(axis, [point / (points - 1) for point in range(points)], curve)
    axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=f"share of the singular values, n = {n:.0f}")
    axis.set_ylabel("share of their sum")
    _finish(axis, "Singular values, the largest first", "lower right")


def _draw_lines(axis: "Axes", x: Sequence[int | float], values: Float[Tensor, "layers h points"]) -> None:
    """A line for each head, in the colour of its layer."""
    from matplotlib import colormaps

    colors = colormaps["viridis"]
    for layer, heads in enumerate(values):
        for head, line in enumerate(heads):
            style = {"color": colors(0.1 + 0.75 * layer / max(1, len(values) - 1)), "linewidth": 0.9, "alpha": 0.75}
            axis.plot(x, line.tolist(), label=f"layer {layer}" if head == 0 else None, **style)


def _finish(axis: "Axes", title: str, legend: Literal["best", "lower right"] = "best") -> None:
    axis.set_title(title, fontsize=9, fontweight="bold", loc="left")
    axis.tick_params(which="both", labelsize=7)
    axis.xaxis.label.set_fontsize(8)
    axis.yaxis.label.set_fontsize(8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=6.5, frameon=False, loc=legend)

"""The evidence of a run in the terminal: small squares of its heads, two tables, and what may be concluded."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from saccade.bench.evidence.candidates import label
from saccade.bench.evidence.gather import RunEvidence
from saccade.bench.evidence.heat_map import Grid, heat_map, middle
from saccade.bench.evidence.report import LOW, advice, conclusion, facts, percent
from saccade.bench.evidence.spectra import GRID, Spectra
from saccade.bench.shades import cells, heat
from saccade.bench.terminal import shades, speaks_unicode
from saccade.shapes import Float, Tensor

SMALLEST, LARGEST = 12, 24
"""Cells across one square, with which it is still read, and beyond which it says no more."""

GAP = 4


def draw_evidence(evidence: RunEvidence, console: Console, grid: Grid | None = None) -> None:
    """Print all of it, as wide as the terminal allows.

    Args:
        evidence: what was found.
        console: where to print.
        grid: height and width, where the examples are grids: heat maps are drawn in place of queries by keys.

    Raises:
        ValueError: a grid of another size than the examples.
    """
    squares = _squares(evidence, console, grid)
    console.print(Text(f"{facts(evidence)}\n"))
    console.print(*squares)
    console.print(Text(f"{legend(grid, speaks_unicode(console))}\n"))
    if evidence.kept:
        console.print(_patterns(evidence))
        console.print(
            Text("heaviest: as many keys for each query, those with the most weight; no pattern keeps more\n")
        )
    console.print(_singular_values(evidence.spectra))
    console.print(Text(conclusion(evidence), style="bold"))
    console.print(Text(advice(evidence)), soft_wrap=True)


def legend(grid: Grid | None, unicode: bool = True) -> str:
    """What the squares show."""
    if grid is not None:
        return (
            f"layer.head: where the query at row, column {middle(grid)} looks on average; the darker, the more weight"
        )
    arrow, down = ("→", "↓") if unicode else ("->", "v")
    return f"layer.head: mean weights, keys {arrow} queries {down}; within d tokens lies half of the weight"


def _squares(evidence: RunEvidence, console: Console, grid: Grid | None) -> list[Table]:
    """Each layer's heads side by side, in as many rows as the terminal needs."""
    maps = evidence.means.mean if grid is None else heat_map(evidence.means.mean, grid)
    across = max(1, min(maps.shape[1], console.width // (SMALLEST + GAP)))
    side = max(1, min(LARGEST, console.width // across - GAP))
    tables = []
    for layer, heads in enumerate(maps):
        for first in range(0, len(heads), across):
            shown = range(first, min(first + across, len(heads)))
            table = Table.grid(padding=(0, 2))
            table.add_row(*(Text(_title(evidence, layer, head, grid), style="italic") for head in shown))
            table.add_row(*(shades(_levels(heads[head], side), console) for head in shown))
            tables.append(table)
    return tables


def _title(evidence: RunEvidence, layer: int, head: int, grid: Grid | None) -> str:
    within = "" if grid else f" d={evidence.means.half_within[layer, head]:.0f}"
    return f"{layer}.{head}{within}"


def _levels(weights: Float[Tensor, "height width"], side: int) -> Float[Tensor, "r c"]:
    """The same shape in at most `side` cells across."""
    height, width = weights.shape
    columns = cells(width, side)
    return heat(weights, max(1, round(height * columns / width)), columns)


def _patterns(evidence: RunEvidence) -> Table:
    table = Table(
        box=SIMPLE_HEAD, pad_edge=False, title="What a pattern would keep of the weight", title_justify="left"
    )
    table.add_column("pattern", no_wrap=True)
    for name in ("pairs", "kept", "heaviest", "by layer, %"):
        table.add_column(name, justify="right")
    for each in evidence.kept:
        layers = " ".join(f"{share:.0f}" for share in (100 * each.kept.mean(1)).tolist())
        shares = each.pairs, each.mean, each.best.mean().item()
        table.add_row(label(each.mechanism), *map(percent, shares), layers)
    return table


def _singular_values(spectra: Spectra) -> Table:
    title = f"Singular values: how many of n = {spectra.length:.0f} are needed, mean over heads"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    names = ("layer", "90% of sum", "99% of sum", "99% of squares", "not zero", f"sum in first 1/{LOW}")
    for name in names:
        table.add_column(name, justify="right")
    columns = [spectra.needed(0.9), spectra.needed(0.99), spectra.needed(0.99, "squares"), spectra.rank]
    for layer in range(len(spectra.rank)):
        counts = (f"{column[layer].mean():.0f}" for column in columns)
        table.add_row(str(layer), *counts, percent(spectra.curve[layer, :, GRID // LOW].mean().item()))
    return table

"""Position methods in the terminal: a picture of the numbers of each position, and scores by distance."""

import torch
from rich.console import Console
from rich.text import Text

from saccade.bench.positions.views import PositionView, Views
from saccade.bench.shades import pooled
from saccade.bench.terminal import FRAME, MOST_CELLS, shades, speaks_unicode
from saccade.shapes import Float, Tensor

MOST_ROWS = 8
HEADS_SHOWN = 4


def draw_positions(views: Views, console: Console) -> None:
    """Print one method after another, as wide as the terminal allows."""
    unicode = speaks_unicode(console)
    for view in views.shown:
        across, down = ("→", "↓") if unicode else ("->", "v")
        console.print(Text.assemble((view.name, "bold"), f": {view.does}"))
        console.print(Text(f"positions {across} {view.rows} {down}", style="italic"))
        console.print(shades(_cells(view, console.width - FRAME), console), no_wrap=True, overflow="ignore", crop=True)
        for line in by_distance(view, unicode):
            console.print(Text(line))
        console.print()
    for note in ("Of the channels some; the fuller, the higher.", *views.notes[1:]):
        console.print(Text(note))


def _cells(view: PositionView, width: int) -> Float[Tensor, "r c"]:
    """Some of the rows, each in two: neighbouring channels have little in common, and their mean says nothing."""
    rows, n = view.levels.shape
    some = torch.linspace(0, rows - 1, min(rows, MOST_ROWS)).round().long()
    picked = view.levels[some].repeat_interleave(2, 0)
    return pooled(picked, len(picked), max(1, min(n, MOST_CELLS, width)))


def by_distance(view: PositionView, unicode: bool) -> list[str]:
    """The mean score of the query with the two keys at each distance: a line of distances, and one for each head."""
    reach = view.scores.shape[1] - view.middle
    distances = [0, *(2**power for power in range(12) if 2**power < reach)]
    measure = view.measure if unicode else view.measure.replace("·", ".")
    lines = ["distance " + "".join(f"{distance:>8}" for distance in distances)]
    for head, scores in enumerate(view.scores[:HEADS_SHOWN].tolist()):
        means = [(scores[view.middle + each] + scores[view.middle - each]) / 2 for each in distances]
        name = "score" if len(view.scores) == 1 else f"head {head}"
        lines.append(f"{name:<9}" + "".join(f"{mean:>8.2f}" for mean in means))
    return [*lines, f"({measure})"]

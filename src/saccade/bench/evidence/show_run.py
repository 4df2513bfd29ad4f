"""What the heads of a trained run look at: read it, and hand what is found to the screen, to a file or to a machine."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from saccade.bench.evidence.gather import look_into
from saccade.bench.evidence.heat_map import read_grid
from saccade.bench.evidence.plots import evidence_figure
from saccade.bench.evidence.report import to_dict
from saccade.bench.evidence.terminal import draw_evidence
from saccade.bench.plots import save


def show_run(
    run: Path,
    patterns: Sequence[str] = (),
    *,
    out: Path | None = None,
    grid: str | None = None,
    as_json: bool = False,
    reading: dict[str, Any],
) -> None:
    """Show the evidence for choosing an attention.

    Args:
        run: the folder of a run that is finished.
        patterns: patterns to weigh instead of those of the list.
        out: a picture to draw, in place of the screen.
        grid: height and width such as `8x12`, where the examples are grids: heat maps are drawn.
        as_json: print one JSON object, in place of the screen.
        reading: further options of `look_into`.

    Raises:
        ValueError, OSError: as `look_into`, `read_grid`, `heat_map` and `save`.
    """
    cells = None if grid is None else read_grid(grid)
    with Console(stderr=True).status("") as status:
        evidence = look_into(run, patterns, **reading, on_example=lambda done: status.update(f"examples read: {done}"))
    if out is not None:
        save(evidence_figure(evidence, cells), out)
    if as_json:
        sys.stdout.write(f"{json.dumps(to_dict(evidence))}\n")
    elif out is not None:
        sys.stdout.write(f"wrote {out}\n")
    else:
        draw_evidence(evidence, Console(), cells)

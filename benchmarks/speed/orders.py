"""Patterns whose keys lie far apart: strides, grids, graphs. They need another order of tokens, or lists of pairs.

The large graph is held to the definition in a smaller form, as the definition has an n x n array for every head.
"""

import torch
from torch import Tensor

from saccade import Axial, Edges, Strided
from saccade.bench.measure import peak_memory, speed_ratio
from speed.ratios import DENSE
from speed.rows import Row, backend_of, dense, pattern_row
from speed.timing import Timer, both, draw, forward

HEADS, DIM = 8, 64


def far_apart(n: int, nodes: int, edges: int, timer: Timer) -> None:
    """Speed, backend and memory of each beside dense attention."""
    side = int(n**0.5)
    print(f"\nKeys far apart, h {HEADS}, d {DIM}; memory at its peak, forward + backward, in all heads; n x n in one")
    print(f"{'':32}{'n':>8}{'backend':>12}{'forward':>10}{'forward + backward':>20}{'MB':>10}{'n x n floats, MB':>20}")
    for row in (pattern_row(Strided(128)), pattern_row(Axial(side, side))):
        row.check(row)
        line(row, n, timer)
    small = pattern_row(Edges(graph(1024, 90_000)))
    small.check(small)
    large = pattern_row(Edges(graph(nodes, edges)), name=f"Edges, {edges:,} in a graph")
    if (backend := line(large, nodes, timer)) != "pairs":
        print(f"`auto` should choose pairs for the graph, not {backend}!")


def graph(nodes: int, edges: int) -> Tensor:
    """Directed edges between random nodes, none twice."""
    drawn = torch.unique(torch.randint(nodes * nodes, (edges + edges // 8,)))
    chosen = drawn[torch.randperm(len(drawn))[:edges]]
    return torch.stack([chosen // nodes, chosen % nodes])


def line(row: Row, n: int, timer: Timer) -> str:
    """Print one row; gives its backend."""
    call, inputs = row.build(HEADS, n, DIM), draw(HEADS, n, DIM)
    backend = backend_of(call, inputs)
    ratios = []
    for work in (forward, both):
        times = timer.turns({DENSE: work(dense, inputs), row.name: work(call, inputs)})
        ratios.append(speed_ratio(times[row.name], times[DENSE]).value)
    peak = peak_memory(both(call, inputs), torch.device("cpu"))
    speeds = f"{ratios[0]:9.1f}x{ratios[1]:19.1f}x"
    print(f"{row.name:32}{n:8,}{backend:>12}{speeds}{peak / 1e6:10.0f}{4 * n * n / 1e6:20,.0f}", flush=True)
    return backend

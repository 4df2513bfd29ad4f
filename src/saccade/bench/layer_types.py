"""Layer types side by side: table 1 of "Attention Is All You Need" (Vaswani et al. 2017) at given sizes.

How much a layer computes, how many steps it must take one after the other, and how far a signal has to travel between
two positions. Counted, not measured: a multiplication and an addition of a matrix product are two operations.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from saccade.bench.choice import check_lengths
from saccade.bench.cost_report import human
from saccade.errors import whole_number

NOTE = (
    "mixing: operations that the complexity speaks of; layer: with the projections of attention. steps: those "
    "that cannot be taken at once. path: layers, or steps of a recurrent one, that a signal passes from the first "
    "position to the last; kernels look back. n positions, width d, r seen by each, kernel k."
)


@dataclass(frozen=True)
class Sizes:
    """What the layers have in common.

    Attributes:
        width: of input and output of each position, d.
        radius: positions that restricted attention sees on either side; the paper's r is `2 radius + 1`.
        kernel: of the convolutions, k; they look back, at a position and the `k - 1` before it.

    Raises:
        ValueError: a size that cannot be.
    """

    width: int = 512
    radius: int = 64
    kernel: int = 3

    def __post_init__(self) -> None:
        for name in ("width", "radius"):
            whole_number(name, getattr(self, name))
        whole_number("kernel", self.kernel, 2)


@dataclass(frozen=True)
class LayerType:
    """What one layer takes for one sequence.

    Attributes:
        name: what kind it is.
        length: positions of the sequence, n.
        complexity: operations of a layer, as the paper has it.
        mixing: the same, counted.
        layer: all operations of its matrix products.
        sequential: steps that must come one after the other.
        path: how many layers, or steps of a recurrent one, stand between the first position and the last.
    """

    name: str
    length: int
    complexity: str
    mixing: int
    layer: int
    sequential: int
    path: int


def layer_types(n: int, sizes: Sizes | None = None) -> list[LayerType]:
    """The rows of the table for sequences of `n` positions.

    Raises:
        ValueError: no positions.
    """
    whole_number("n", n)
    sizes = sizes or Sizes()
    d, k, radius = sizes.width, sizes.kernel, sizes.radius
    projections, dense = 8 * n * d * d, 2 * n * d * d
    every, near = 4 * n * n * d, 4 * near_pairs(n, radius) * d
    separable = 2 * n * k * d + dense
    within, beside = layers_to_cross(n, radius), layers_to_cross(n, k - 1)
    return [
        LayerType("attention", n, "n^2 d", every, every + projections, 1, min(1, n - 1)),
        LayerType(f"attention, {2 * radius + 1} near", n, "r n d", near, near + projections, 1, within),
        LayerType("recurrent", n, "n d^2", 2 * dense, 2 * dense, n, n),
        LayerType("recurrent, LSTM", n, "n d^2", 8 * dense, 8 * dense, n, n),
        LayerType(f"convolution, kernel {k}", n, "k n d^2", k * dense, k * dense, 1, beside),
        LayerType(f"dilated, kernel {k}", n, "k n d^2", k * dense, k * dense, 1, dilated_layers_to_cross(n, k)),
        LayerType(f"separable, kernel {k}", n, "k n d + n d^2", separable, separable, 1, beside),
    ]


def near_pairs(n: int, radius: int) -> int:
    """Pairs of `n` positions that are at most `radius` apart, each with itself included."""
    radius = min(radius, n - 1)
    return n * (2 * radius + 1) - radius * (radius + 1)


def layers_to_cross(n: int, reach: int) -> int:
    """How many layers that see this far back bring the first of `n` positions to the last."""
    return -(-(n - 1) // reach)


def dilated_layers_to_cross(n: int, kernel: int) -> int:
    """The same for convolutions whose dilation grows by the kernel from layer to layer, so that none sees twice."""
    layers = 0
    while kernel**layers < n:
        layers += 1
    return layers


def table(lengths: Sequence[int], sizes: Sizes | None = None) -> Table:
    """A row for each layer type, length by length.

    Raises:
        ValueError: lengths that cannot be.
    """
    check_lengths(lengths)
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("length", "layer type", "complexity", "mixing", "layer", "steps", "path"):
        words = column in ("layer type", "complexity")
        drawn.add_column(column, justify="left" if words else "right", no_wrap=not words)
    for n in sorted(lengths):
        rows = layer_types(n, sizes)
        for row in rows:
            counts = human(row.mixing).strip(), human(row.layer).strip(), f"{row.sequential:,}", f"{row.path:,}"
            length = f"{n:,}" if row is rows[0] else ""
            drawn.add_row(length, row.name, row.complexity, *counts, end_section=row is rows[-1])
    return drawn


def to_json(lengths: Sequence[int], sizes: Sizes | None = None) -> str:
    """One object: the sizes, and a record for each layer type and length."""
    check_lengths(lengths)
    rows = [asdict(row) for n in sorted(lengths) for row in layer_types(n, sizes)]
    return json.dumps({"sizes": asdict(sizes or Sizes()), "layer_types": rows}, indent=2)

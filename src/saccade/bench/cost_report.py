"""Costs of a model with each of several mechanisms over several lengths: in words, as a table, as JSON, and drawn."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from saccade.attention import Mechanism
from saccade.bench.choice import check_lengths
from saccade.bench.lines import GREY, label_ends, lengths_axis, styles
from saccade.bench.model_cost import LONGEST, Dominance, ModelCost, Shape, dominance, model_cost
from saccade.bench.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LETTERS = ("", "k", "M", "G", "T", "P")
NOTE = (
    "operations: multiplications and additions of a forward pass (k, M, G, T: 10^3, 10^6, 10^9, 10^12). attention: the "
    "products on queries, keys and values, for the pairs that may be seen; computed: those carried out, as parts of "
    "tiles are computed whole; share: attention's in the model. The projections around attention count as the "
    "layer's. kept: by training, in the encoder, for the backward pass. moved: read and written at least."
)


@dataclass(frozen=True, eq=False)
class Costs:
    """What models cost that differ in their mechanism alone.

    Attributes:
        shape: the sizes of the model.
        batch: examples.
        causal: whether a position sees only itself and earlier ones.
        rows: the cost for each mechanism and length.
        dominance: for each mechanism, the length from which it takes the most.
    """

    shape: Shape
    batch: int
    causal: bool
    rows: dict[tuple[str, int], ModelCost]
    dominance: dict[str, Dominance]

    @property
    def mechanisms(self) -> list[str]:
        """Their expressions, in the order in which they were given."""
        return list(self.dominance)

    @property
    def lengths(self) -> list[int]:
        """The lengths, the shortest first."""
        return sorted({n for _, n in self.rows})


def costs(
    mechanisms: Sequence[Mechanism],
    lengths: Sequence[int],
    shape: Shape | None = None,
    *,
    batch: int = 1,
    causal: bool = False,
) -> Costs:
    """The costs of a model with each mechanism at each length.

    Raises:
        ValueError: lengths or sizes that cannot be, or `causal` with a mechanism that does not claim it.
    """
    check_lengths(lengths)
    shape = shape or Shape()
    rows = {
        (str(spec), n): model_cost(spec, n, shape, batch=batch, causal=causal)
        for n in sorted(lengths)
        for spec in mechanisms
    }
    return Costs(shape, batch, causal, rows, {str(spec): dominance(spec, shape, causal=causal) for spec in mechanisms})


def heading(found: Costs) -> str:
    """The model, its weights, and what its other parts take, in words."""
    shape, cost = found.shape, next(iter(found.rows.values()))
    tokens = found.batch * (found.lengths[0] + shape.extra_tokens)
    layers = f"{shape.layers} layers" if shape.layers > 1 else "1 layer"
    parts = [f"{layers}, width {shape.width:,}, {shape.heads} heads, hidden {shape.inner:,}"]
    parts += [f"{shape.kv_heads} key heads"] if shape.kv_heads else []
    parts += [f"vocabulary {shape.vocabulary:,}"] if shape.vocabulary else []
    parts += [f"{shape.classes:,} classes"] if shape.classes else []
    parts += [f"{shape.extra_tokens:,} extra tokens"] if shape.extra_tokens else []
    parts += ["causal"] if found.causal else []
    most = max(each.parameters for each in found.rows.values())
    upto = "" if most == cost.parameters else f" to {human(most)}"
    return (
        f"encoder of {', '.join(parts)}; batch {found.batch}\n"
        f"{human(cost.parameters)}{upto} parameters: {human(cost.weight_bytes)}B, "
        f"or {human(4 * cost.weight_bytes)}B with gradients and Adam's averages\n"
        f"operations a token: projections {human(cost.projections // tokens)}, "
        f"feed-forward {human(cost.feed_forward // tokens)}"
    )


def table(found: Costs) -> Table:
    """A row for each mechanism, length by length."""
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    columns = ("length", "mechanism", "attention", "computed", "model", "share", "kept", "moved")
    for column in columns:
        named = column == "mechanism"
        drawn.add_column(column, justify="left" if named else "right", no_wrap=not named, overflow="fold")
    for n in found.lengths:
        for i, name in enumerate(found.mechanisms):
            cells = _cells(found.rows[name, n])
            last = i + 1 == len(found.mechanisms)
            drawn.add_row(f"{n:,}" if i == 0 else "", name, *cells, end_section=last and len(found.mechanisms) > 1)
    return drawn


def sentences(found: Costs) -> list[str]:
    """From which length on attention takes more than everything else; alike mechanisms in one sentence."""
    alike: dict[str, list[str]] = {}
    for name, each in found.dominance.items():
        alike.setdefault(_where(each), []).append(name)
    return [f"attention takes more than half of the operations {where}: {', '.join(alike[where])}" for where in alike]


def to_json(found: Costs) -> str:
    """One object: the model, a record for each mechanism and length, and the dominance of each mechanism."""
    model = {**asdict(found.shape), "hidden": found.shape.inner, "batch": found.batch, "causal": found.causal}
    rows = [_record(name, n, cost) for (name, n), cost in found.rows.items()]
    dominates = {name: asdict(each) for name, each in found.dominance.items()}
    return json.dumps({"model": model, "costs": rows, "dominance": dominates}, indent=2)


def cost_figure(found: Costs) -> "Figure":
    """The share of attention in the operations of the model, over the length.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    figure = new_figure(7.2, 4.2)
    axis = figure.subplots()
    style = styles(found.mechanisms)
    ends = {}
    for name in found.mechanisms:
        shares = [100 * found.rows[name, n].share for n in found.lengths]
        axis.plot(found.lengths, shares, markersize=4.5, linewidth=1.6, clip_on=False, zorder=3, **style[name])
        ends[name] = (found.lengths[-1], shares[-1])
    lengths_axis(axis, found.lengths)
    axis.set_ylim(0, 100)
    axis.axhline(50, linestyle="--", linewidth=1, color=GREY)
    _mark_dominance(axis, found, {name: each["color"] for name, each in style.items()})
    axis.set_ylabel("attention's share of the model's operations, %")
    shape = found.shape
    axis.set_title(
        f"encoder: width {shape.width:,}, {shape.heads} heads, hidden {shape.inner:,}, {shape.layers} layers"
        + (", causal" if found.causal else ""),
        fontsize=10,
        loc="left",
    )
    label_ends(axis, ends, {name: each["color"] for name, each in style.items()})
    return figure


def _mark_dominance(axis: Any, found: Costs, colors: dict[str, str]) -> None:
    """A ring and the length where a line passes the half, inside the picture."""
    for name, each in found.dominance.items():
        if each.length is not None and found.lengths[0] <= each.length <= found.lengths[-1]:
            axis.plot(each.length, 50, marker="o", markersize=9, markerfacecolor="none", color=colors[name], zorder=4)
            words = {"textcoords": "offset points", "fontsize": 8.5, "color": colors[name], "ha": "right"}
            axis.annotate(f"n = {each.length:,}", (each.length, 50), xytext=(-8, 6), **words)


def human(number: int | float) -> str:
    """Three digits and a letter: `38.7 G`."""
    value, power = float(number), 0
    while value >= 999.5 and power + 1 < len(LETTERS):
        value, power = value / 1000, power + 1
    digits = 0 if power == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {LETTERS[power]}"


def _cells(cost: ModelCost) -> tuple[str, ...]:
    counts = (human(each).strip() for each in (cost.attention, cost.computed, cost.flops))
    sizes = (f"{human(each)}B" for each in (cost.kept, cost.bytes))
    return *counts, f"{cost.share:.1%}", *sizes


def _where(found: Dominance) -> str:
    if found.length is not None:
        return f"from n = {found.length:,} on"
    return "at no length" if found.never else f"nowhere up to n = {LONGEST:,}"


def _record(name: str, n: int, cost: ModelCost) -> dict[str, Any]:
    flops = {
        "attention": cost.attention,
        "attention_computed": cost.computed,
        "projections": cost.projections,
        "feed_forward": cost.feed_forward,
        "rest": cost.rest,
        "model": cost.flops,
    }
    return {
        "mechanism": name,
        "length": n,
        "flops": flops,
        "attention_share": cost.share,
        "parameters": cost.parameters,
        "moved_bytes": cost.bytes,
        "kept_bytes": cost.kept,
        "training_bytes": cost.training_bytes,
    }

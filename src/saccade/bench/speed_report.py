"""What a benchmark of attention found: a table, sentences, JSONL, and a plot of time over length."""

import json
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from saccade.bench.accuracy import ITSELF
from saccade.bench.choice import BASELINE
from saccade.bench.follow import clock
from saccade.bench.lines import label_ends, lengths_axis, styles
from saccade.bench.plots import new_figure
from saccade.bench.race import Progress
from saccade.bench.speed import Row, Speeds
from saccade.machine import machine, place, versions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTE = (
    f"Times are medians of rounds in which all took turns. speed: next to {BASELINE}; ~ where the rounds do not agree "
    "on the faster. predicted: from the operations that are carried out, so the gap is what an implementation loses. "
    "memory: the most that torch held at once beyond the inputs. error: the largest difference from the definition in "
    "float64, next to the largest output; * from the mechanism itself in float64, as it has no other definition (one "
    "that chooses tokens by hashing or by rank may choose others there, and is then off by much)."
)


def heading(found: Speeds) -> str:
    """What was measured, where."""
    setting = found.setting
    causal = ", causal" if setting.causal else ""
    made_with = ", ".join(f"{name} {version}" for name, version in versions().items())
    shape = f"batch {setting.batch}, {setting.heads} heads of {setting.head_dim}, {setting.dtype}{causal}"
    return f"attention alone: {shape}\n{place()}\n{made_with}"


def table(found: Speeds, lengths: list[int] | None = None) -> Table:
    """A row for each mechanism, length by length; of some lengths only, if they are given."""
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    times = ("forward",) if found.setting.forward_only else ("forward", "+ backward")
    for column in ("length", "mechanism", *times, "speed", "predicted", "memory", "error"):
        named = column == "mechanism"
        drawn.add_column(column, justify="left" if named else "right", no_wrap=not named, overflow="fold")
    for n in _begun(found) if lengths is None else lengths:
        rows = [found.rows[n, name] for name in found.mechanisms]
        for i, row in enumerate(rows):
            last = i + 1 == len(rows) and len(rows) > 1
            drawn.add_row(f"{n:,}" if i == 0 else "", row.mechanism, *_cells(found, row), end_section=last)
    return drawn


def progress_table(progress: Progress) -> Table:
    """The length that is being measured, with what is going on below it."""
    drawn = table(progress.found, [progress.length])
    drawn.caption = (
        f"{progress.doing}{progress.detail} · {clock(progress.left)} left in all · Ctrl-C stops and keeps what is done"
    )
    drawn.caption_justify = "left"
    return drawn


def sentences(found: Speeds) -> list[str]:
    """From which length on each mechanism is faster than dense attention, and why some were not measured."""
    others = [name for name in found.mechanisms if name != BASELINE]
    said = [f"{name}: {_crossing(found, name)}" for name in others]
    left_out = [row for row in found.rows.values() if row.reason]
    said += [f"{row.mechanism} at n = {row.length:,} {row.status}: {row.reason}" for row in left_out]
    missing = [n for n in found.lengths if n not in _begun(found)]
    return said + ([f"stopped before n = {missing[0]:,}"] if missing else [])


def to_records(found: Speeds) -> list[dict[str, Any]]:
    """One record for each mechanism and length that had its turn; each stands alone, with machine and versions."""
    turns = [row for row in found.rows.values() if row.status not in ("waiting", "stopped")]
    return [_record(found, row) for row in turns]


def to_jsonl(found: Speeds) -> str:
    """The records, one a line."""
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in to_records(found))


def speed_figure(found: Speeds) -> "Figure":
    """Time over length, both in powers, with the speed next to dense attention at the end of each line.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    figure = new_figure(7.6, 4.6)
    axis = figure.subplots()
    style, ends = styles(found.mechanisms), {}
    for name in found.mechanisms:
        rows = [row for row in found.rows.values() if row.mechanism == name and found.seconds(row)]
        if not rows:
            continue
        times = [1e3 * median(found.seconds(row)) for row in rows]
        axis.plot([row.length for row in rows], times, markersize=4.5, linewidth=1.6, zorder=3, **style[name])
        ends[_end(found, rows[-1])] = (rows[-1].length, times[-1], style[name]["color"])
    lengths_axis(axis, found.lengths)
    _times_axis(axis)
    what = "forward" if found.setting.forward_only else "forward and backward"
    axis.set_ylabel(f"{what}, ms")
    setting = found.setting
    causal = ", causal" if setting.causal else ""
    title = f"batch {setting.batch}, {setting.heads} heads of {setting.head_dim}, {setting.dtype}{causal}\n{place()}"
    axis.set_title(title, fontsize=9, loc="left")
    places = {text: (x, y) for text, (x, y, _) in ends.items()}
    label_ends(axis, places, {text: color for text, (_, _, color) in ends.items()})
    return figure


def _begun(found: Speeds) -> list[int]:
    """The lengths at which anything had its turn."""
    return sorted({n for (n, _), row in found.rows.items() if row.status != "stopped"})


def _times_axis(axis: "Axes") -> None:
    """Powers of ten, and what is written on the way from one to the next as there is room."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    steps = (1, 2, 5) if high < 1000 * low else (1,)
    axis.yaxis.set_major_locator(LogLocator(subs=steps))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def _end(found: Speeds, row: Row) -> str:
    ratio = found.speed(row)
    return row.mechanism if ratio is None or row.mechanism == BASELINE else f"{row.mechanism} {ratio.value:.1f}x"


def _crossing(found: Speeds, name: str) -> str:
    length = found.crossover(name)
    measured = [n for n in found.lengths if found.speed(found.rows[n, name]) is not None]
    if not measured:
        return f"not measured next to {BASELINE}"
    if length is None:
        return f"not faster than {BASELINE} at n = {measured[-1]:,}, the longest that both were measured at"
    if length == measured[0]:
        return f"faster than {BASELINE} at every length that was measured"
    return f"faster than {BASELINE} from about n = {float(f'{length:.2g}'):,.0f} on"


def _cells(found: Speeds, row: Row) -> tuple[str, ...]:
    times = (row.forward,) if found.setting.forward_only else (row.forward, row.both)
    if not found.seconds(row):
        return (*([row.status] + [""] * (len(times) - 1)), "", "", "", "")
    ratio = found.speed(row)
    noise = "~" if ratio and ratio.is_noise and row.mechanism != BASELINE else ""
    star = "*" if row.against == ITSELF else " "
    return (
        *(_time(each) for each in times),
        f"{noise}{ratio.value:.2f}x" if ratio else "-",
        f"{found.predicted(row):.2f}x",
        "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:,.1f} MB",
        "-" if row.error is None else f"{row.error:.0e}{star}",
    )


def _time(seconds: tuple[float, ...]) -> str:
    value = 1e3 * median(seconds)
    return f"{value:,.2f} ms" if value < 10 else f"{value:,.1f} ms" if value < 1000 else f"{value / 1e3:,.2f} s"


def _record(found: Speeds, row: Row) -> dict[str, Any]:
    ratio, seconds = found.speed(row), found.seconds(row)
    return {
        "mechanism": row.mechanism,
        "length": row.length,
        "status": row.status,
        "reason": row.reason or None,
        "median_seconds": median(seconds) if seconds else None,
        "forward_seconds": row.forward,
        "forward_backward_seconds": row.both,
        "speed_to_baseline": asdict(ratio) if ratio else None,
        "predicted_speed": found.predicted(row),
        "baseline": BASELINE,
        "flops": row.cost.flops,
        "flops_computed": row.cost.computed,
        "peak_memory_bytes": row.peak_bytes,
        "error": row.error,
        "error_against": row.against or None,
        "setting": asdict(found.setting),
        "seed": found.setting.seed,
        "machine": machine(),
        "versions": versions(),
    }

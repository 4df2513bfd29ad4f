"""Ratios to dense attention: ours at two lengths beside their goals and the peers, then other sizes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import version

import torch

from saccade.bench.measure import peak_memory, speed_ratio
from speed.peers import COMPUTES, UnavailableError, peer_rows
from speed.rows import Row, dense, our_rows
from speed.timing import Call, Timer, Work, both, draw, forward

DENSE = "dense"
INSTALL = "what is not installed comes with: pip install --no-deps -r benchmarks/requirements.txt"


@dataclass(frozen=True)
class Size:
    """The inputs of a table, with a batch of 1."""

    heads: int
    n: int
    dim: int

    def __str__(self) -> str:
        return f"n = {self.n:,}, h {self.heads}, d {self.dim}"


def side_by_side(lengths: Iterable[int], timer: Timer, peers: bool) -> None:
    """Ours and the peers, every row checked before."""
    check(our_rows())
    others, missing = checked(peer_rows() if peers else [])
    for n in lengths:
        table(Size(8, n, 64), [*our_rows(), *others], timer)
    said(COMPUTES if others else "", missing)


def checked(peers: Iterable[tuple[str, Row]]) -> tuple[list[Row], list[str]]:
    """The peers that run here and compute what they should, with their versions; and why others do not."""
    rows, missing = [], []
    for package, row in peers:
        try:
            label = f"{row.name} {version(package).partition('+')[0]}"
            row.check(row)
            rows.append(replace(row, name=label))
        except Exception as error:  # whatever stops a peer is said, and stops nothing else
            missing.append(f"  {row.name}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
    return rows, missing


def said(computes: str, missing: list[str]) -> None:
    """What peers compute, and which are missing."""
    if computes:
        print("\n" + computes)
    if missing:
        print("\nnot measured:", *missing, INSTALL, sep="\n")


def other_sizes(n: int, timer: Timer) -> None:
    """One head, and other head dims: the ratios should stay."""
    check(our_rows())
    for heads, dim in ((1, 64), (8, 32), (8, 128)):
        table(Size(heads, n, dim), our_rows(), timer)


def check(rows: Iterable[Row]) -> None:
    """What is wrong is not timed."""
    for row in rows:
        row.check(row)


def table(size: Size, rows: list[Row], timer: Timer, memory: bool = False) -> None:
    """Speed of every row forward, then forward and backward, next to dense attention in the same rounds.

    With `memory`, the most that torch held at once in forward and backward, beyond the inputs, in their unit: tensors
    of (n, h, d).
    """
    calls: dict[str, Call] = {DENSE: dense}
    skipped = {}
    for row in rows:
        try:
            calls[row.name] = row.build(size.heads, size.n, size.dim)
        except UnavailableError as error:
            skipped[row.name] = str(error)
    inputs = {False: draw(size.heads, size.n, size.dim), True: draw(size.heads, size.n, size.dim, tokens_first=True)}
    first = {row.name: inputs[row.tokens_first] for row in rows} | {DENSE: inputs[False]}
    ahead = timer.turns({name: forward(call, first[name]) for name, call in calls.items()})
    forward_only = {row.name for row in rows if not row.backward}
    round_trip = timer.turns({n: both(call, first[n]) for n, call in calls.items() if n not in forward_only})
    peaks = {name: peak(size, both(calls[name], first[name])) for name in round_trip} if memory else {}
    print(f"\n{size}: times as fast as dense attention ({len(ahead[DENSE])} and {len(round_trip[DENSE])} rounds)")
    print(f"{'':32}{'forward':>8}{'goal':>7}{'ms':>10}{'forward + backward':>22}{'goal':>7}{'ms':>10}", end="")
    print(f"{'tensors':>10}" if memory else "")
    print(f"{DENSE:32}" + cells(ahead, DENSE, None, 8) + cells(round_trip, DENSE, None, 22) + peaks.get(DENSE, ""))
    for row in rows:
        goals = row.goals.get(size.n, (None, None))
        words = cells(ahead, row.name, goals[0], 8) + cells(round_trip, row.name, goals[1], 22)
        print(f"{row.name:32}" + (skipped.get(row.name) or words + peaks.get(row.name, "")))


def peak(size: Size, work: Work) -> str:
    """A cell of memory."""
    return f"{peak_memory(work, torch.device('cpu')) / (4 * size.heads * size.n * size.dim):10.1f}"


def cells(times: dict[str, list[float]], name: str, goal: float | None, width: int) -> str:
    """Ratio, goal and median time in milliseconds; the goal with an exclamation mark where it is missed."""
    if name not in times:
        return f"{'-':>{width}}{'':17}"
    ratio = speed_ratio(times[name], times[DENSE]).value
    aim = "" if goal is None else f"{goal:g}x" + ("!" if ratio < goal else "")
    return f"{ratio:{width - 1}.1f}x{aim:>7}{1e3 * torch.tensor(times[name]).median().item():10.1f}"

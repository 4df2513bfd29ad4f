"""Is `auto` ever slower than dense attention? Many patterns, from 16 tokens up."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from saccade import Causal, Full, Global, Local, Strided, big_bird
from saccade.attention.patterns import Pattern
from saccade.bench.measure import speed_ratio
from speed.rows import backend_of, dense, pattern_row
from speed.timing import Call, Timer, both, draw, forward

PATTERNS = {
    "Full()": Full(),
    "Causal()": Causal(),
    "Local(8)": Local(8),
    "Local(128)": Local(128),
    "Local(128) | Global(2)": Local(128) | Global(2),
    "big_bird()": big_bird(),
    "Strided(128)": Strided(128),
}
WAYS = {"forward": forward, "forward + backward": both}
HEADS, DIM = 8, 64
LEAST = 1 / 1.1
SHORT, LONG = 512, 1024
"""Up to `SHORT` tokens a round takes no time, but varies; beyond `LONG` it takes long, and varies little."""


@dataclass(frozen=True)
class Found:
    """How fast `auto` is next to dense attention with the same mask, and without any."""

    place: str
    backend: str
    masked: float
    unmasked: float

    @property
    def cell(self) -> str:
        """Both ratios, and a mark where `auto` is too slow beside dense attention with the same mask."""
        mark = "!" if self.masked < LEAST else " "
        return f"{self.masked:7.2f}/{self.unmasked:.2f} {self.backend[0]}{mark}"

    def __str__(self) -> str:
        return f"{self.masked:.2f} ({self.unmasked:.2f} without a mask), {self.place}, {self.backend}"


def never_slower(lengths: list[int], timer: Timer) -> None:
    """Every pattern at every length, forward, and forward + backward."""
    print(f"\n`auto`, h {HEADS}, d {DIM}: times as fast as dense attention with the pattern's mask / without a mask;")
    print("d, b or p: it chose dense, blockwise or pairs", flush=True)
    found = []
    for way in WAYS:
        columns = [measured(way, n, timer) for n in lengths]
        print(f"\n{way:24}" + "".join(f"{n:>15,}" for n in lengths))
        for name in PATTERNS:
            print(f"{name:24}" + "".join(column[name].cell for column in columns), flush=True)
        found += [each for column in columns for each in column.values()]
    print("\nslowest next to the masked call:  ", min(found, key=lambda each: each.masked))
    print("slowest next to the unmasked call:", min(found, key=lambda each: each.unmasked))


def measured(way: str, n: int, timer: Timer) -> dict[str, Found]:
    """All patterns at one length, in the same rounds."""
    inputs, backends = draw(HEADS, n, DIM), dict[str, str]()
    calls: dict[str, Call] = {"dense": dense}
    for name, pattern in PATTERNS.items():
        row = pattern_row(pattern)
        row.check(row)
        calls[name], calls[f"{name} masked"] = row.build(HEADS, n, DIM), masked(pattern, n)
        backends[name] = backend_of(calls[name], inputs)
    rounds = 5 * timer.rounds if n <= SHORT else timer.rounds if n <= LONG else min(2, timer.rounds)
    times = replace(timer, rounds=rounds).turns({name: WAYS[way](call, inputs) for name, call in calls.items()})
    return {
        name: Found(
            place=f"{name}, n = {n:,}, {way}",
            backend=backends[name],
            masked=speed_ratio(times[name], times[f"{name} masked"]).value,
            unmasked=speed_ratio(times[name], times["dense"]).value,
        )
        for name in PATTERNS
    }


def masked(pattern: Pattern, n: int) -> Call:
    """Dense attention that computes the same: as torch likes it best, its mask made beforehand."""
    if pattern == Full():
        return dense
    if pattern == Causal():
        return lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True)
    mask = torch.zeros(n, n).masked_fill(~pattern.dense(n, n)[0, 0], -torch.inf)

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scaled_dot_product_attention(q, k, v, mask)

    return call

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
LEAST, SMALL = 0.9, 512
HEADS, DIM = 8, 64


@dataclass(frozen=True)
class Found:
    """One call of `auto`: how fast it is next to dense attention with the same mask, and without any."""

    pattern: str
    n: int
    way: str
    backend: str
    masked: float
    unmasked: float

    def __str__(self) -> str:
        return f"{self.masked:.2f} ({self.unmasked:.2f} without a mask): {self.pattern}, n = {self.n:,}, {self.way}"


def never_slower(lengths: list[int], timer: Timer) -> None:
    """Every pattern at every length, forward, and forward + backward."""
    print(f"\n`auto`, h {HEADS}, d {DIM}: times as fast as dense attention with the pattern's mask / without a mask;")
    print("d, b or p: it chose dense, blockwise or pairs")
    head = "".join(f"{n:>14,}" for n in lengths)
    worst = []
    for way in WAYS:
        print(f"\n{way:24}{head}")
        for name, pattern in PATTERNS.items():
            found = [measured(name, pattern, n, way, timer) for n in lengths]
            print(f"{name:24}" + "".join(cell(each) for each in found), flush=True)
            worst += found
    print("\nslowest next to the masked call:  ", min(worst, key=lambda each: each.masked))
    print("slowest next to the unmasked call:", min(worst, key=lambda each: each.unmasked))


def measured(name: str, pattern: Pattern, n: int, way: str, timer: Timer) -> Found:
    """One call of `auto` beside both dense calls."""
    row = pattern_row(pattern)
    if n <= SMALL:
        row.check(row)
    call, inputs = row.build(HEADS, n, DIM), draw(HEADS, n, DIM)
    backend = backend_of(call, inputs)
    works = {"auto": call, "masked": masked(pattern, n), "unmasked": dense}
    often = replace(timer, rounds=5 * timer.rounds) if n <= SMALL else timer  # these take no time, but vary
    times = often.turns({key: WAYS[way](each, inputs) for key, each in works.items()})
    ratios = [speed_ratio(times["auto"], times[key]).value for key in ("masked", "unmasked")]
    return Found(name, n, way, backend, *ratios)


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


def cell(found: Found) -> str:
    """Both ratios, and a mark where one is too low."""
    mark = "!" if min(found.masked, found.unmasked) < LEAST else " "
    return f"{found.masked:6.2f}/{found.unmasked:.2f}{found.backend[0]:>2}{mark}"

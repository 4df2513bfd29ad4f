"""What a benchmark of attention alone is told to measure, what it finds, and where dense attention is overtaken."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from saccade.attention import Cost
from saccade.attention.mechanism import check_sizes
from saccade.bench.choice import BASELINE, check_lengths
from saccade.bench.measure import Ratio, speed_ratio
from saccade.errors import must_be, unknown

Status = Literal["waiting", "done", "skipped", "failed", "stopped"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        lengths: queries, and keys, of each example.
        heads: query heads.
        head_dim: dim of one query, key or value.
        batch: examples.
        causal: whether a query sees only keys up to its own position.
        dtype: `fp32`, `bf16`, `fp16` or `fp64`.
        rounds: at most so many, fewer where they take too long.
        seconds: that the rounds of one length may take; three are made in any case.
        forward_only: whether the backward pass is left out.
        seed: what the inputs are drawn from.
    """

    lengths: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 8192)
    heads: int = 8
    head_dim: int = 64
    batch: int = 1
    causal: bool = False
    dtype: str = "fp32"
    rounds: int = 15
    seconds: int | float = 8.0
    forward_only: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_lengths(self.lengths)
        check_sizes(self.heads, self.head_dim, None, None)
        for name in ("batch", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(must_be(name, "at least 1", getattr(self, name)))
        if not 0 < self.seconds < math.inf:
            raise ValueError(must_be("seconds", "above 0 and finite", self.seconds))
        if self.dtype not in DTYPES:
            raise ValueError(unknown("dtype", self.dtype, DTYPES))


@dataclass(frozen=True)
class Row:
    """What was found of one mechanism at one length; what was not measured is empty.

    Attributes:
        mechanism: its expression.
        length: queries and keys.
        cost: what its formulas say of one example.
        status: what became of it.
        reason: why it was skipped or failed.
        forward: seconds of a forward pass without gradients, round by round.
        both: seconds of a forward and a backward pass, in the same rounds.
        peak_bytes: the most that torch held at once beyond the inputs; `None` where it does not tell.
        error: the largest difference of an output from what it should be, relative to the largest of those.
        against: what the output was held to.
    """

    mechanism: str
    length: int
    cost: Cost
    status: Status = "waiting"
    reason: str = ""
    forward: tuple[float, ...] = ()
    both: tuple[float, ...] = ()
    peak_bytes: int | None = None
    error: float | None = None
    against: str = ""


@dataclass(frozen=True)
class Speeds:
    """Several mechanisms over several lengths.

    Attributes:
        setting: what was measured.
        rows: for each length and mechanism, in the order in which they were measured.
    """

    setting: Setting
    rows: dict[tuple[int, str], Row]

    @property
    def mechanisms(self) -> list[str]:
        """Their expressions, dense attention first where it was added."""
        return list(dict.fromkeys(name for _, name in self.rows))

    @property
    def lengths(self) -> list[int]:
        """The lengths, the shortest first."""
        return sorted({n for n, _ in self.rows})

    @property
    def stopped(self) -> bool:
        """Whether it was stopped before all had their turn."""
        return any(row.status == "stopped" for row in self.rows.values())

    def seconds(self, row: Row) -> tuple[float, ...]:
        """Of forward and backward, or of forward alone where nothing else was measured."""
        return row.forward if self.setting.forward_only else row.both

    def speed(self, row: Row) -> Ratio | None:
        """How many times as fast as dense attention in the rounds of both; `None` where there are none."""
        own, dense = self.seconds(row), self.seconds(self.rows[row.length, BASELINE])
        rounds = min(len(own), len(dense))
        return speed_ratio(own[:rounds], dense[:rounds]) if rounds else None

    def predicted(self, row: Row) -> float:
        """What the operations that are carried out say of the speed: those of dense attention to its own."""
        return self.rows[row.length, BASELINE].cost.computed / max(1, row.cost.computed)

    def crossover(self, mechanism: str) -> float | None:
        """The length from which it stays faster than dense attention, between two measured ones by their speeds.

        `None` if it is not faster at the longest that both were measured at.
        """
        ratios = {n: self.speed(self.rows[n, mechanism]) for n in self.lengths}
        points = [(n, ratio.value) for n, ratio in ratios.items() if ratio is not None]
        slower = [i for i, (_, ratio) in enumerate(points) if ratio <= 1]
        if not points or slower[-1:] == [len(points) - 1]:
            return None
        if not slower:
            return float(points[0][0])
        (n, before), (n_next, after) = points[slower[-1]], points[slower[-1] + 1]
        part = math.log(1 / before) / math.log(after / before)
        return n * (n_next / n) ** part

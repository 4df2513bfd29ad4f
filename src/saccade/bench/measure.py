"""Speed and memory of a piece of work, so that two pieces in one process can be compared.

Speed: medians over rounds in which the pieces take turns, so that whatever else the machine does falls on all of
them alike. Memory: the most that torch held at once. The size of the process says little, as it never shrinks again.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import Any

import torch
from torch.autograd.profiler import profile

from saccade.errors import must_be

Work = Callable[[], object]

COUNTED = ("cpu", "cuda")
"""Kinds of devices on which torch tells how much memory it holds."""

CONFIDENCE = 0.98

ROUNDS = 7
"""Rounds after the first, which warms up: the fewest whose range holds the true median with that confidence."""


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one piece of work is as another.

    Attributes:
        value: the median over the rounds.
        low: the smallest of the rounds that hold the true median with `CONFIDENCE`; of any round where none can.
        high: the largest of them.
    """

    value: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether the rounds do not agree on which of the two is the faster."""
        return self.low <= 1 <= self.high


def speed_ratio(seconds: Sequence[float], baseline: Sequence[float]) -> Ratio:
    """The speed of what took `seconds` next to what took `baseline`, round by round.

    Raises:
        ValueError: no rounds, or not as many of one as of the other.
    """
    if not seconds or len(seconds) != len(baseline):
        raise ValueError(must_be("seconds", f"{len(baseline)} rounds, at least 1", len(seconds)))
    ratios = sorted(theirs / own for own, theirs in zip(seconds, baseline, strict=True))
    spare = _spare(len(ratios))
    return Ratio(median(ratios), ratios[spare], ratios[-1 - spare])


def _spare(rounds: int) -> int:
    """How many rounds at either end can be left out: each lies on one side of the median as a coin falls."""
    tails = accumulate(math.comb(rounds, least) / 2**rounds for least in range(rounds))
    return max(0, sum(2 * tail <= 1 - CONFIDENCE for tail in tails) - 1)


def seconds_of(work: Work, device: torch.device) -> float:
    """Wall time of one run, until the device has finished."""
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def peak_memory(work: Work, device: torch.device) -> int:
    """The most bytes that torch held at once while `work` ran, beyond what it held before.

    On a CPU every allocation and release is taken from torch's profiler and added up; on CUDA the allocator counts
    by itself. Memory that a library behind torch takes without asking torch is not seen.

    Raises:
        ValueError: a device of another kind.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    if device.type not in COUNTED:
        raise ValueError(must_be("device", "a CPU or a CUDA device", str(device)))
    # The profiler's own notes about its start and stop would land in the middle of the user's table.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    profiler = profile(use_kineto=False, profile_memory=True)
    with profiler:
        work()
    held = peak = 0
    for change in _changes(profiler.kineto_results):
        held += change
        peak = max(peak, held)
    return peak


def _changes(found: Any) -> list[int]:
    """Bytes allocated, or released as a negative number, in the order in which it happened."""
    events = [event for event in found.events() if event.name() == "[memory]"]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()

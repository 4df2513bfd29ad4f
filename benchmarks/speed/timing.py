"""Works that take turns, so that whatever else the machine does falls on all of them alike."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Call = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention: `[b h n d]` of queries, keys and values to `[b h n d]`."""
Work = Callable[[], object]

SHORT, LONG = 2e-3, 0.1
"""Seconds: shorter works are repeated until they take `SHORT`; what takes `LONG` at first is not tried again."""


@dataclass(frozen=True)
class Timer:
    """How works are timed.

    Attributes:
        rounds: in each of them every work has one turn.
        seconds: after so many no further round begins, once there were two.
        processor_time: count what the process computes, not what passes; only one thread makes sense then.
    """

    rounds: int
    seconds: float = 15.0
    processor_time: bool = False

    def turns(self, works: Mapping[str, Work]) -> dict[str, list[float]]:
        """Seconds of each work in each round, after one that warms up."""
        repeats = {name: self._repeats(work) for name, work in works.items()}
        times: dict[str, list[float]] = {name: [] for name in works}
        begin = time.monotonic()
        for done in range(self.rounds):
            if done >= 2 and time.monotonic() - begin > self.seconds:
                break
            for name, work in works.items():
                times[name].append(self._spent(work, repeats[name]))
        return times

    def _repeats(self, work: Work) -> int:
        if self._spent(work, 1) >= LONG:
            return 1
        return max(1, math.ceil(SHORT / self._spent(work, 1)))

    def _spent(self, work: Work, repeats: int) -> float:
        clock = time.process_time if self.processor_time else time.perf_counter
        begin = clock()
        for _ in range(repeats):
            work()
        return (clock() - begin) / repeats


def draw(heads: int, n: int, dim: int, tokens_first: bool = False) -> list[Tensor]:
    """Queries, keys and values `[1 h n d]`, in memory as `[1 n h d]` for those who like that better."""
    shape = (1, n, heads, dim) if tokens_first else (1, heads, n, dim)
    inputs = [torch.randn(shape) for _ in range(3)]
    return [(each.transpose(1, 2) if tokens_first else each).requires_grad_() for each in inputs]


def forward(call: Call, inputs: list[Tensor]) -> Work:
    """The forward pass alone."""
    held = [each.detach() for each in inputs]
    return torch.no_grad()(lambda: call(*held))


def both(call: Call, inputs: list[Tensor]) -> Work:
    """Forward and backward, gradients for all inputs but keys that are queries."""
    grad = torch.randn_like(inputs[2])
    return lambda: torch.autograd.grad(call(*inputs), inputs, grad, allow_unused=True)

"""What all methods share that write one token a step, each from all tokens before it.

`Greedy` and `Sampling` follow one continuation of each prompt (`rows`), `Beam` the best few.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from saccade.errors import must_be, whole_number
from saccade.generation.method import Method, Request
from saccade.generation.stream import Stream
from saccade.shapes import Bool, Float, Int, Tensor


class Plan(NamedTuple):
    """What is fixed for every row before its first token. All tensors have the rows first, so rows can be picked.

    Attributes:
        prompts: what the rows begin with.
        prompt_lengths: tokens of each prompt.
        limits: the most tokens that each row may get.
        seeds: what decides the draws of each row, for a method that draws.
    """

    prompts: Int[Tensor, "m n"]
    prompt_lengths: Int[Tensor, " m"]
    limits: Int[Tensor, " m"]
    seeds: Int[Tensor, " m"]

    def of(self, rows: Int[Tensor, " m2"]) -> "Plan":
        """The same for other rows."""
        return Plan(*(part[rows] for part in self))

    def forced(self, position: int) -> tuple[Bool[Tensor, " m"], Int[Tensor, " m"]]:
        """Whose prompts go on at a position, and how."""
        token = self.prompts[:, min(position, self.prompts.shape[1] - 1)]
        return self.prompt_lengths > position, token


class Opening(NamedTuple):
    """Behind the shortest prompt: the rows that go on, the scores of their next tokens, the model's state."""

    plan: Plan
    rows: Int[Tensor, " a"]
    logits: Float[Tensor, "a v"]
    stream: Any
    position: int

    def repeated(self, model: Stream, times: int) -> "Opening":
        """Each row `times` times, one beside the other."""
        if times == 1:
            return self
        places = torch.arange(len(self.rows), device=self.rows.device).repeat_interleave(times)
        everyone = torch.arange(len(self.plan.limits), device=self.rows.device).repeat_interleave(times)
        rows = (self.rows[:, None] * times + torch.arange(times, device=self.rows.device)).flatten()
        stream = model.reorder(self.stream, places) if len(places) else None
        return Opening(self.plan.of(everyone), rows, self.logits[places], stream, self.position)


@dataclass(frozen=True, kw_only=True)
class Autoregressive(Method):
    """The limits of what is written token by token.

    Attributes:
        max_length: the most tokens a row gets, `eos` included, to which comes
        max_ratio: times the tokens of its source, rounded down. ("Source length + 50", as in Vaswani et al. 2017,
            is `max_length=50, max_ratio=1`.)
        min_length: the fewest tokens before `eos`.

    Raises:
        ValueError: a number out of its range.
    """

    max_length: int = 256
    max_ratio: float = 0.0
    min_length: int = 0

    def __post_init__(self) -> None:
        whole_number("max_length", self.max_length, 0)
        whole_number("min_length", self.min_length, 0)
        if not (0 <= self.max_ratio < math.inf):
            raise ValueError(must_be("max_ratio", "at least 0 and finite", self.max_ratio))
        if not self.max_ratio and self.min_length > self.max_length:
            raise ValueError(must_be("min_length", f"at most max_length, {self.max_length}", self.min_length))

    @abstractmethod
    def start(self, model: Stream, request: Request) -> Any:
        """The state behind the prompts."""

    def open(self, model: Stream, request: Request) -> Opening:
        """Read the prompts as far as all have tokens, and drop the rows that may get none.

        Raises:
            ValueError: the longest result depends on sources whose lengths are not given, or a vocabulary that
                does not hold what it must.
        """
        seeds = torch.zeros_like(request.prompt_lengths) if request.seeds is None else request.seeds
        plan = Plan(request.prompts.long(), request.prompt_lengths, self._limits(request), seeds)
        position = int(plan.prompt_lengths.min())
        rows = plan.limits.nonzero()[:, 0]
        if not len(rows):
            return Opening(plan, rows, torch.zeros(0, 0, device=rows.device), None, position)
        logits, stream = model.start(plan.prompts[:, :position], request.source)
        request.special.forbidden(logits.shape[1])
        if len(rows) < len(plan.limits):
            logits, stream = logits[rows], model.reorder(stream, rows)
        return Opening(plan, rows, logits, stream, position)

    def _limits(self, request: Request) -> Int[Tensor, " b"]:
        limits = torch.full_like(request.prompt_lengths, self.max_length)
        if not self.max_ratio:
            return limits
        if request.source_lengths is None:
            raise ValueError(must_be("source_lengths", "given where max_ratio is not 0", None))
        return limits + (request.source_lengths.to(limits.device).double() * self.max_ratio).long()

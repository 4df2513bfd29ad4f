"""What a decoding method is: a frozen spec with `start`, `advance` and `finish` over a state of its own.

Whether a method writes one token a step or many, the loop (`generate`) sees the same: what stands there so far, how
long it is, and which rows are done. What a row asks for comes as a `Request`, what comes out is `Generated`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch

from saccade.errors import must_be
from saccade.shapes import Bool, Float, Int, Tensor

NEAR = 1e-4
"""Two log-probabilities nearer than this are a near-tie: in fp32, another batch size may rank them otherwise."""


@dataclass(frozen=True)
class SpecialTokens:
    """The ids that mean something to a decoder.

    Attributes:
        pad: fills up rows behind their end. It is never generated, and may lie outside of the vocabulary.
        eos: ends a row; with `None`, rows end only where they may not grow longer.
        never: further ids that are never generated, such as `bos`, `unk` and `mask`.

    Raises:
        ValueError: an `eos` that is the padding or may never be generated.
    """

    pad: int
    eos: int | None = None
    never: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.eos is not None and (self.eos < 0 or self.eos in (self.pad, *self.never)):
            raise ValueError(must_be("eos", "a token that may be generated, other than pad and never", self.eos))

    def forbidden(self, vocabulary: int) -> list[int]:
        """What is never generated, of the ids below `vocabulary`.

        Raises:
            ValueError: a vocabulary without `eos`, or in which nothing may be generated.
        """
        if self.eos is not None and self.eos >= vocabulary:
            raise ValueError(must_be("eos", f"below the {vocabulary} tokens that the model scores", self.eos))
        forbidden = sorted({token for token in (self.pad, *self.never) if 0 <= token < vocabulary})
        if len(forbidden) == vocabulary:
            raise ValueError(must_be("never", f"fewer than all {vocabulary} tokens that the model scores", self.never))
        return forbidden


class Request(NamedTuple):
    """What is to be generated, checked by `generate`, whose arguments these are."""

    special: SpecialTokens
    prompts: Int[Tensor, "b n"]
    prompt_lengths: Int[Tensor, " b"]
    source: Any
    source_lengths: Int[Tensor, " b"] | None
    seeds: Int[Tensor, " b"] | None
    generator: torch.Generator | None


class Generated(NamedTuple):
    """What was generated, without the prompts. Of several results a prompt, the best or first comes first.

    Row `i * results + j` is result `j` of prompt `i`.

    Attributes:
        tokens: as long as the longest row; `pad` behind the end of the others.
        lengths: tokens of each row, its `eos` counted.
        ended: whether a row ends on `eos`; the others were cut at their longest.
        log_probs: the sum of the model's log-probabilities of the tokens, `eos` included, whatever the method did
            to them before it chose.
        scores: what the method ranks results by: the `log_probs`, or those with a length penalty.
        near_ties: choices of each row that might have been others in another batch, at fp32 (see `NEAR`).
        passes: how often the decoder was run for each row.
        steps: how often the loop went round, for the whole batch.
        results: results of each prompt.
        trace: what stood there before the first step and after each, if it was asked for.
    """

    tokens: Int[Tensor, "m t"]
    lengths: Int[Tensor, " m"]
    ended: Bool[Tensor, " m"]
    log_probs: Float[Tensor, " m"]
    scores: Float[Tensor, " m"]
    near_ties: Int[Tensor, " m"]
    passes: Int[Tensor, " m"]
    steps: int = 0
    results: int = 1
    trace: "tuple[Snapshot, ...]" = ()


@runtime_checkable
class Progress(Protocol):
    """What every method's state shows of its rows while it works on them."""

    @property
    def tokens(self) -> Int[Tensor, "m t"]:
        """What stands there; only the first `lengths` of a row mean something."""
        ...

    @property
    def lengths(self) -> Int[Tensor, " m"]:
        """How many tokens that are."""
        ...

    @property
    def done(self) -> Bool[Tensor, " m"]:
        """Which rows will not change any more."""
        ...


class Snapshot(NamedTuple):
    """The rows after a step: their tokens with `pad` behind them."""

    tokens: Int[Tensor, "m t"]
    lengths: Int[Tensor, " m"]
    done: Bool[Tensor, " m"]


def trimmed(tokens: Int[Tensor, "m t"], lengths: Int[Tensor, " m"], pad: int) -> Int[Tensor, "m t2"]:
    """The rows as long as the longest of them, with `pad` behind the others."""
    longest = int(lengths.max()) if len(lengths) else 0
    behind = torch.arange(longest, device=tokens.device) >= lengths[:, None]
    return tokens[:, :longest].masked_fill(behind, pad)


class Method(ABC):
    """A way to decode. Subclasses are frozen dataclasses whose every option has a default."""

    name: ClassVar[str]

    @abstractmethod
    def start(self, model: Any, request: Request) -> Progress:
        """The state before the first step.

        Args:
            model: of the form that the method needs, such as a `Stream`.
            request: what is to be generated, for one prompt or more.

        Raises:
            ValueError: a request that the method cannot serve.
        """

    @abstractmethod
    def advance(self, model: Any, state: Any) -> Progress:
        """The state after one more step; the old one stays as it was.

        Raises:
            ValueError: scores that are no distribution.
        """

    @abstractmethod
    def finish(self, state: Any) -> Generated:
        """What the state has come to, once all its rows are done."""

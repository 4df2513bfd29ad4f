"""Windows of a stream: what a language model reads at once, and which tokens of it are scored.

Training takes whole windows, drawn anywhere (`random_windows`) or one beside the other (`consecutive_windows`). What
is drawn follows from a seed and a step or an epoch, so that a run goes on with exactly what it would have read.
Evaluation slides (`sliding_windows`): each token is scored once, and reads as much of what comes before it as the
overlap grants.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from saccade.data.batching import order
from saccade.errors import must_be, whole_number
from saccade.shapes import Bool, Int, Tensor


@dataclass(frozen=True, eq=False)
class WindowBatch:
    """Windows side by side.

    Attributes:
        inputs: what is read, int64; behind the end of the stream, zeros.
        targets: the token that follows each, int64.
        scored: True where the target counts. Every input of a scored target is real.
    """

    inputs: Int[Tensor, "b n"]
    targets: Int[Tensor, "b n"]
    scored: Bool[Tensor, "b n"]

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device | str) -> "WindowBatch":
        """The same batch on another device."""
        return WindowBatch(self.inputs.to(device), self.targets.to(device), self.scored.to(device))


def random_windows(
    tokens: Int[Tensor, " n"], length: int, batch_size: int, *, seed: int = 0, start: int = 0
) -> Iterator[WindowBatch]:
    """Windows that begin anywhere, without end.

    Args:
        tokens: a stream.
        length: tokens that are read at once.
        batch_size: windows in a batch.
        seed: with the step, what the beginnings are drawn from.
        start: the first step wanted; those before it are skipped at no cost.

    Raises:
        ValueError: if a number is less than 1 or the stream is shorter than a window.
    """
    _check(tokens, length, batch_size)
    step = start
    while True:
        first = torch.randint(len(tokens) - length, (batch_size,), generator=_generator(seed, step))
        yield _cut(tokens, first, length)
        step += 1


def consecutive_windows(
    tokens: Int[Tensor, " n"], length: int, batch_size: int, *, seed: int = 0, start: int = 0
) -> Iterator[WindowBatch]:
    """Epoch after epoch of windows one beside the other, in a drawn order. Arguments and errors as `random_windows`.

    Each token is a target once an epoch but for a rest that is shorter than a window. How it is divided between the
    two ends is drawn for each epoch, so that windows have other borders each time.
    """
    _check(tokens, length, batch_size)
    windows = (len(tokens) - 1) // length
    epoch, begin = divmod(start, -(-windows // batch_size))
    while True:
        rest = len(tokens) - 1 - windows * length
        offset = torch.randint(rest + 1, (), generator=_generator(seed, epoch))
        first = torch.tensor(order(windows, seed, epoch)) * length + offset
        for some in first.split(batch_size)[begin:]:
            yield _cut(tokens, some, length)
        epoch, begin = epoch + 1, 0


def sliding_windows(tokens: Int[Tensor, " n"], length: int, stride: int, batch_size: int = 16) -> Iterator[WindowBatch]:
    """Windows in which each token of a stream but the first is scored exactly once.

    The first window scores all its targets, each later one the last `stride` of them: these have read at least
    `length - stride + 1` tokens. The last window may end early.

    Args:
        tokens: a stream.
        length: tokens that are read at once.
        stride: how far one window lies behind the one before, from 1 to `length`. Costs `length / stride` passes.
        batch_size: windows in a batch.

    Raises:
        ValueError: if a number is less than 1, the stride is more than the length, or nothing is there to score.
    """
    _check(tokens, 1, batch_size)
    whole_number("length", length)
    if not 1 <= stride <= length:
        raise ValueError(must_be("stride", f"from 1 to length = {length}", stride))
    targets = len(tokens) - 1
    length = min(length, targets)
    first = torch.arange(1 + -(-(targets - length) // stride)) * stride
    # Where the window before ended.
    fresh = (first - stride + length).masked_fill(first == 0, 0)
    batches = zip(first.split(batch_size), fresh.split(batch_size), strict=True)
    return (_cut(tokens, some, length, new) for some, new in batches)


def _cut(
    tokens: Int[Tensor, " n"], first: Int[Tensor, " b"], length: int, fresh: Int[Tensor, " b"] | None = None
) -> WindowBatch:
    """Windows from the places `first` on; of these, targets before the places `fresh` are not scored."""
    places = first[:, None] + torch.arange(length)
    real = places < len(tokens) - 1
    scored = real if fresh is None else real & (places >= fresh[:, None])
    places = places.masked_fill(~real, 0)
    inputs, targets = (tokens[each].long().masked_fill(~real, 0) for each in (places, places + 1))
    return WindowBatch(inputs, targets, scored)


def _generator(seed: int, step: int) -> torch.Generator:
    """Random numbers that depend on nothing else."""
    digest = hashlib.blake2b(f"{seed} {step}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def _check(tokens: Int[Tensor, " n"], length: int, batch_size: int) -> None:
    whole_number("length", length)
    whole_number("batch_size", batch_size)
    if len(tokens) <= length:
        raise ValueError(must_be("stream", f"longer than a window of {length:,} tokens", len(tokens)))

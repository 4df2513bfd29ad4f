"""One token at a time equals the causal whole.

From the state before the first token, and from those behind a `prefill` of several lengths. A step must leave the
state it was given as it is, for beams branch from it; examples that change places in the state must keep their own
past, for beams are reordered so; and a hidden token must stay hidden. In evaluation: nobody trains token by token.
"""

from collections.abc import Iterator
from typing import Any

import torch

from saccade.checking.calling import TargetFailure
from saccade.checking.compare import Finding, difference
from saccade.checking.draws import Inputs, between, examples, first
from saccade.checking.stream import Stream, mapped
from saccade.checking.subject import Subject
from saccade.checking.terms import NotClaimed
from saccade.shapes import Bool, Tensor

B = 3
PREFILLS = {13: (1, 6, 12), 300: (63, 128, 290), 320: (64, 128, 256)}
"""For each length, how many tokens go into a prefill; whatever stays, up to this many, goes in step by step."""
STEPS = 20


def step(subject: Subject) -> Iterator[Finding]:
    """Outputs of steps beside those of the whole call.

    Raises:
        NotClaimed: there are no claims, and the whole call is not causal or the methods are not implemented.
    """
    if subject.training:
        return
    stream = subject.stream()
    _excuse(subject, stream)
    for n in subject.usable(13, subject.one_of(300, 320)):
        kinds = subject.masks(B, n) if stream.masked else {}
        for name, mask in {"no mask": None, **kinds}.items():
            inputs = subject.draw(n, b=B)
            whole = subject(inputs, mask, causal=True)
            if n == 13 or mask is None:
                got, _ = _walk(stream, inputs, mask, stream.start(B), 0, n)
                yield _same(got, whole, mask, 0, f"one step at a time (n={n}, {name})")
            if stream.prefills:
                yield from _prefilled(subject, stream, inputs, mask, whole, name)
    yield from _branches(subject, stream)


def _excuse(subject: Subject, stream: Stream) -> None:
    """Without claims, do not accuse what only looks like decoding."""
    if not subject.terms.guessed:
        return
    try:
        stream.start(B)
    except TargetFailure as failure:
        if isinstance(failure.__cause__, NotImplementedError):
            raise NotClaimed(str(failure)) from failure
    if "causal" in subject.terms.missing and subject.sees_later_tokens(subject.one_of(13, 300)):
        raise NotClaimed("the whole call takes no causal and is not causal: there is nothing to compare a step with")


def _prefilled(
    subject: Subject, stream: Stream, inputs: Inputs, mask: Bool[Tensor, "b n"] | None, whole: Tensor, name: str
) -> Iterator[Finding]:
    n = inputs[0].shape[-2]
    for length in (length for length in PREFILLS[n] if subject.accepts(length)):
        told = f"a prefill of {length} (n={n}, {name})"
        got, state = stream.prefill(first(inputs, length), None if mask is None else mask[:, :length])
        yield _same(got, whole, mask, 0, told)
        got, _ = _walk(stream, inputs, mask, state, length, min(n, length + STEPS))
        yield _same(got, whole, mask, length, f"steps behind {told}")


def _walk(
    stream: Stream, inputs: Inputs, mask: Bool[Tensor, "b n"] | None, state: Any, start: int, stop: int
) -> tuple[Tensor, Any]:
    """The outputs of those positions, step by step, and the state behind them."""
    outs = []
    for i in range(start, stop):
        now = None if mask is None else mask[:, i : i + 1]
        out, state = stream.step(between(inputs, i, i + 1), state, now)
        outs.append(out)
    return torch.cat(outs, dim=-2), state


def _branches(subject: Subject, stream: Stream) -> Iterator[Finding]:
    """Half way, go on from the same state again and again: after another token, and with examples in another order."""
    n = subject.one_of(13)
    half = n // 2
    inputs, other = subject.draw(n, b=B), subject.draw(n, b=B)
    _, state = _walk(stream, inputs, None, stream.start(B), 0, half)
    want, _ = _walk(stream, inputs, None, state, half, n)
    _walk(stream, other, None, state, half, n)
    got, _ = _walk(stream, inputs, None, state, half, n)
    yield _same(got, want, None, 0, "steps from a state that was used before: a step writes into its state")
    order = [2, 0, 0]
    if not _batch_first(state):
        return
    got, _ = _walk(stream, examples(inputs, order), None, mapped(state, lambda leaf: _reordered(leaf, order)), half, n)
    yield _same(got, want[order], None, 0, f"examples {order} of the batch, reordered through the state")


def _batch_first(state: Any) -> bool:
    """Whether every floating tensor of the state has the batch as its first axis."""
    sizes: list[tuple[int, ...]] = []
    mapped(state, lambda leaf: sizes.append(tuple(leaf.shape)) or leaf if leaf.is_floating_point() else leaf)
    return bool(sizes) and all(size[:1] == (B,) for size in sizes)


def _reordered(leaf: Tensor, order: list[int]) -> Tensor:
    return leaf[order] if leaf.shape[:1] == (B,) else leaf


def _same(got: Tensor, whole: Tensor, mask: Bool[Tensor, "b n"] | None, start: int, told: str) -> Finding:
    """What was got for positions from `start` on, beside the whole."""
    n = got.shape[-2]
    want = whole[..., start : start + n, :]
    rows = torch.ones(B, n, dtype=torch.bool) if mask is None else mask[:, start : start + n]
    return difference(got, want, rows, f"in {told}")

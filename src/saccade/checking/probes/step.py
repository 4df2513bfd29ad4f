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
from saccade.checking.stream import Stream, leaves, mapped
from saccade.checking.subject import Subject
from saccade.checking.terms import NotClaimed
from saccade.shapes import Bool, Tensor

B = 3
PREFILLS = {13: (1, 6, 12), 300: (63, 128, 290), 320: (64, 128, 256)}
"""For each length, how many tokens go into a prefill."""
STEPS = 20
"""So many steps follow a prefill, or as many as there are tokens left."""


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
        kinds = subject.masks(B, n) if stream.takes_mask("step") else {}
        for name, mask in {"no mask": None, **kinds}.items():
            inputs = subject.draw(n, b=B)
            whole = subject(inputs, mask, causal=True)
            if n == 13 or mask is None:
                got, _ = _walk(stream, inputs, mask, stream.start(B), 0, n)
                yield _same(got, whole, mask, 0, f"one step at a time (n={n}, {name})")
            if stream.prefills and (mask is None or stream.takes_mask("prefill")):
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
        raise NotClaimed("the whole call is not causal and takes no causal")


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
    """Half way, go on from the same state again: after other tokens, and with the examples in another order."""
    n, half = 13, 6
    inputs, other = subject.draw(n, b=B), subject.draw(n, b=B)
    before, state = _walk(stream, inputs, None, stream.start(B), 0, half)
    behind, _ = _walk(stream, inputs, None, state, half, n)
    whole = torch.cat((before, behind), dim=-2)
    _walk(stream, other, None, state, half, n)
    again, _ = _walk(stream, inputs, None, state, half, n)
    found = _same(again, whole, None, half, "steps from a state that was used before: a step writes into its state")
    yield found
    if found.violation > subject.rounding or not _batch_first(state):
        return
    order = [2, 0, 0]
    moved = mapped(state, lambda leaf: leaf[order] if leaf.shape[:1] == (B,) else leaf)
    got, _ = _walk(stream, examples(inputs, order), None, moved, half, n)
    yield _same(got, whole[order], None, half, f"examples {order} of the batch, picked from the state")


def _batch_first(state: Any) -> bool:
    """Whether every floating tensor of the state has the batch as its first axis."""
    shapes = [leaf.shape for leaf in leaves(state) if leaf.is_floating_point()]
    return bool(shapes) and all(shape[:1] == (B,) for shape in shapes)


def _same(got: Tensor, whole: Tensor, mask: Bool[Tensor, "b n"] | None, start: int, told: str) -> Finding:
    """What was got for the positions from `start` on, beside the whole."""
    compared = slice(start, start + got.shape[-2])
    full = whole.clone()
    full[..., compared, :] = got
    real = torch.ones(B, whole.shape[-2], dtype=torch.bool) if mask is None else mask
    rows = torch.zeros_like(real)
    rows[:, compared] = real[:, compared]
    return difference(full, whole, rows, f"in {told}")

"""NaN and inf behind the key mask reach no output and no gradient.

On `"qkv"` keys and values are spoilt and queries are not: rows at real positions must stay what they were, and
all rows finite. On `"x"` a hidden token's own query is spoilt too: then only the outputs at real positions are
compared, and no gradients, for the spoilt queries' share of them is NaN even where keys and values are hidden well.
"""

import math
from collections.abc import Iterator

import torch

from saccade.checking.compare import Finding, difference, finite
from saccade.checking.draws import Inputs, replaced, spread
from saccade.checking.subject import Subject
from saccade.shapes import Bool, Tensor

BAD = (math.nan, math.inf, -math.inf)


def hidden_nan(subject: Subject) -> Iterator[Finding]:
    """Outputs and gradients, before and after what is hidden becomes NaN or inf."""
    look = _tokens if len(subject.names) == 1 else _keys_and_values
    for causal in subject.terms.causal:
        for n in subject.usable(13, 100, 128):
            for name, mask in subject.masks(2, n).items():
                yield from look(subject, mask, causal, f"(n={n}{', causal' if causal else ''}, {name})")


def _tokens(subject: Subject, mask: Bool[Tensor, "b n"], causal: bool, told: str) -> Iterator[Finding]:
    inputs = subject.draw(mask.shape[1])
    want = subject(inputs, mask, causal)
    for bad in BAD:
        got = subject(_spoilt(inputs, mask, bad), mask, causal)
        yield difference(got, want, mask, f"when hidden tokens were {bad} {told}")


def _keys_and_values(subject: Subject, mask: Bool[Tensor, "b n"], causal: bool, told: str) -> Iterator[Finding]:
    inputs = subject.draw(mask.shape[1])
    want = subject(inputs, mask, causal)
    cotangent = torch.where(spread(mask, want), subject.noise(want), 0)
    # A hidden key or value has no gradient, and neither has a query at a hidden position: nothing is asked of it.
    wanted = [torch.where(spread(mask, x), x, 0) for x in subject.gradients(inputs, cotangent, mask, causal)]
    for bad in BAD:
        spoilt = (inputs[0], *_spoilt(inputs, mask, bad)[1:])
        what = f"when hidden keys and values were {bad} {told}"
        found = subject.gradients(spoilt, cotangent, mask, causal)
        yield from _still(subject(spoilt, mask, causal), want, mask, what, "output")
        for name, gradient, before in zip(subject.names, found, wanted, strict=True):
            yield from _still(gradient, before, torch.ones_like(mask), what, f"gradient of {name}")


def _still(got: Tensor, want: Tensor, rows: Bool[Tensor, "b n"], told: str, what: str) -> Iterator[Finding]:
    """Equal in those rows and finite in all, apart from what was not finite before."""
    before = want.isfinite()
    got, want = torch.where(before, got, 0), torch.where(before, want, 0)
    yield difference(got, want, rows, told, what)
    yield finite(got, ~rows, told, what)


def _spoilt(inputs: Inputs, mask: Bool[Tensor, "b n"], bad: float) -> Inputs:
    return replaced(inputs, ~mask, tuple(torch.full_like(tensor, bad) for tensor in inputs))

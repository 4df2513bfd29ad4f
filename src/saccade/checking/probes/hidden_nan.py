"""NaN and inf behind the key mask reach no output and no gradient.

On `"qkv"` keys and values are spoilt and queries are not, so every row must stay what it was. On `"x"` a
hidden token's own query is spoilt too: then only the outputs at real positions are compared, and no
gradients, for the spoilt queries' share of them is NaN even where keys and values are hidden well.
"""

import math
from collections.abc import Iterator

import torch

from saccade.checking.compare import Finding, difference
from saccade.checking.draws import Inputs, replaced
from saccade.checking.subject import Subject
from saccade.shapes import Bool, Tensor


def hidden_nan(subject: Subject) -> Iterator[Finding]:
    """Outputs and gradients, before and after hidden keys and values become NaN or inf."""
    for causal in subject.terms.causal:
        for n in subject.usable(13, 100, 128):
            inputs = subject.draw(n)
            for name, mask in subject.masks(2, n).items():
                for bad in (math.nan, math.inf, -math.inf):
                    told = (
                        f"when hidden {_spoilt_names(subject)} were {bad} (n={n}{', causal' if causal else ''}, {name})"
                    )
                    spoilt = _spoil(subject, inputs, mask, bad)
                    yield from _outputs(subject, inputs, spoilt, mask, causal, told)
                    if len(inputs) > 1:
                        yield from _gradients(subject, inputs, spoilt, mask, causal, told)


def _spoil(subject: Subject, inputs: Inputs, mask: Bool[Tensor, "b n"], bad: float) -> Inputs:
    spoilt = replaced(inputs, ~mask, tuple(torch.full_like(tensor, bad) for tensor in inputs))
    return spoilt if len(inputs) == 1 else (inputs[0], *spoilt[1:])


def _spoilt_names(subject: Subject) -> str:
    return "keys and values" if len(subject.names) > 1 else "tokens"


def _outputs(
    subject: Subject, inputs: Inputs, spoilt: Inputs, mask: Bool[Tensor, "b n"], causal: bool, told: str
) -> Iterator[Finding]:
    want, got = subject(inputs, mask, causal), subject(spoilt, mask, causal)
    yield difference(got, want, mask, told)
    if len(inputs) > 1:
        was_finite = want.isfinite()
        yield difference(torch.where(got.isfinite() | ~was_finite, 0, got), torch.zeros_like(got), ~mask, told)


def _gradients(
    subject: Subject, inputs: Inputs, spoilt: Inputs, mask: Bool[Tensor, "b n"], causal: bool, told: str
) -> Iterator[Finding]:
    cotangent = torch.where(mask[:, None, :, None], subject.noise(inputs[-1]), 0)
    wanted = subject.gradients(inputs, cotangent, mask, causal)
    found = subject.gradients(spoilt, cotangent, mask, causal)
    everywhere = torch.ones_like(mask)
    for name, got, want in zip(subject.names, found, wanted, strict=True):
        usable = want.isfinite()
        got, want = torch.where(usable, got, 0), torch.where(usable, want, 0)
        yield difference(got, want, everywhere, told, f"gradient of {name}")

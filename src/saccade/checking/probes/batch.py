"""An output depends on its example alone: not on the batch around it, not on calls before, not on a seed.

An example alone, in another order, and next to others a hundred times as large (a maximum or a mean over the
batch shows only then); the same call again after calls of other lengths (Hugging Face's Big Bird goes dense
after a short input and stays so); the same call under another global seed; and whether a call writes into
its inputs.
"""

import math
from collections.abc import Iterator

import torch

from saccade.checking.compare import Finding, difference
from saccade.checking.draws import Inputs, examples, replaced, right_padding, scaled
from saccade.checking.subject import Subject
from saccade.shapes import Bool, Tensor


def batch(subject: Subject) -> Iterator[Finding]:
    """Each example against itself elsewhere."""
    for causal in subject.terms.causal:
        for n in (subject.one_of(13, 64), subject.one_of(250, 256)):
            inputs = subject.draw(n, b=3)
            for mask in (None, right_padding(3, n)) if subject.masked else (None,):
                padded = "" if mask is None else ", right padding"
                told = f"(n={n}{', causal' if causal else ''}{padded})"
                yield from _company(subject, inputs, mask, causal, told)
                yield from _written(subject, inputs, mask, causal, told)
    yield from _calls_before(subject, subject.terms.causal[-1])
    if not subject.training:
        yield _seed(subject)


def _company(
    subject: Subject, inputs: Inputs, mask: Bool[Tensor, "b n"] | None, causal: bool, told: str
) -> Iterator[Finding]:
    b, n = len(inputs[0]), inputs[0].shape[-2]
    real = torch.ones(b, n, dtype=torch.bool) if mask is None else mask
    want = subject(inputs, mask, causal)
    others = torch.arange(b)[:, None].expand(b, n) > 0
    changed = replaced(inputs, others, scaled(subject.draw(n, b=b), 100.0))
    what = f"when the other examples were drawn anew, 100 times as large {told}"
    yield difference(subject(changed, mask, causal), want, real & ~others, what)
    if subject.draws_noise:
        return
    for index in ([0], [1], [b - 1], list(range(b))[::-1]):
        part = None if mask is None else mask[index]
        got = subject(examples(inputs, index), part, causal)
        what = f"when example {index[0]} stood alone" if len(index) == 1 else "when the batch was reversed"
        yield difference(got, want[index], real[index], f"{what} {told}")


def _written(
    subject: Subject, inputs: Inputs, mask: Bool[Tensor, "b n"] | None, causal: bool, told: str
) -> Iterator[Finding]:
    names = subject.written(inputs, mask, causal)
    yield Finding(math.inf if names else 0.0, f"a call writes into its argument {', '.join(names)} {told}")


def _calls_before(subject: Subject, causal: bool) -> Iterator[Finding]:
    long, between = subject.one_of(768, 256), subject.usable(768, 13, 64)
    inputs, answers = subject.draw(long, b=1), subject.kept()
    want = answers(inputs, None, causal)
    for n in between:
        answers(subject.draw(n, b=1), right_padding(1, n) if subject.masked else None, causal)
    what = f"when the same call was made again after calls with n={', '.join(map(str, between))} (n={long})"
    yield difference(answers(inputs, None, causal), want, torch.ones(1, long, dtype=torch.bool), what)


def _seed(subject: Subject) -> Finding:
    n, causal = subject.one_of(13, 64), subject.terms.causal[-1]
    inputs = subject.draw(n)
    got, want = subject(inputs, None, causal, seed=1), subject(inputs, None, causal)
    what = f"when torch's global generator had another seed: it draws anew in each call (n={n})"
    return difference(got, want, torch.ones(2, n, dtype=torch.bool), what)

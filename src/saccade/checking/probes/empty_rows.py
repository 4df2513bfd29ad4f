"""A query that may see nothing gets zeros and zero gradient.

An example whose tokens are all hidden; and, with causal attention, the first queries of an example that is padded
on the left. On `"x"` what stands behind the attention (a bias, a residual) keeps the output from being zero:
there it must be finite, with finite gradients, and not depend on *other* hidden tokens.
"""

from collections.abc import Iterator

import torch

from saccade.checking.compare import Finding, difference, finite, zero
from saccade.checking.draws import left_padding, replaced, spread
from saccade.checking.subject import Subject
from saccade.shapes import Bool, Tensor


def empty_rows(subject: Subject) -> Iterator[Finding]:
    """The rows of queries that may see nothing."""
    look = _zeros if len(subject.names) > 1 else _independence
    for causal in subject.terms.causal:
        for n in subject.usable(13, 100, 128):
            told = f"(n={n}{', causal' if causal else ''}"
            mask = torch.ones(2, n, dtype=torch.bool)
            mask[1] = False
            yield from look(subject, mask, ~mask, causal, f"where key_mask hides the whole example {told})")
            # Where a causal call leaks, these queries see something anyway: for `prefix_causality` to say.
            if causal and subject.terms.any_mask and not subject.sees_later_tokens(n):
                mask = left_padding(2, n)
                empty = mask.cumsum(dim=1) == 0
                yield from look(subject, mask, empty, causal, f"before the first real token {told}, left padding)")


def _zeros(
    subject: Subject, mask: Bool[Tensor, "b n"], empty: Bool[Tensor, "b n"], causal: bool, told: str
) -> Iterator[Finding]:
    inputs = subject.draw(mask.shape[1])
    out = subject(inputs, mask, causal)
    yield zero(out, empty, told, beside=out)
    # Large, because a sum of no weights that is clamped to the least number overflows only then.
    cotangent, everywhere = 1000 * subject.noise(out), torch.ones_like(mask)
    only_empty = torch.where(spread(empty, out), cotangent, 0)
    found = subject.gradients(inputs, cotangent, mask, causal)
    sent = subject.gradients(inputs, only_empty, mask, causal)
    for name, gradient, nothing in zip(subject.names, found, sent, strict=True):
        yield finite(gradient, everywhere, told, f"gradient of {name}")
        yield zero(nothing, everywhere, f"from queries {told}", f"gradient of {name}", beside=gradient)


def _independence(
    subject: Subject, mask: Bool[Tensor, "b n"], empty: Bool[Tensor, "b n"], causal: bool, told: str
) -> Iterator[Finding]:
    inputs = subject.draw(mask.shape[1])
    out = subject(inputs, mask, causal)
    yield finite(out, empty, told)
    for gradient in subject.gradients(inputs, 1000 * subject.noise(out), mask, causal):
        yield finite(gradient, torch.ones_like(mask), told, "gradient of x")
    odd = (torch.arange(mask.shape[1]) % 2 == 1).expand_as(mask)
    changed = replaced(inputs, empty & odd, subject.draw(mask.shape[1]))
    what = f"when other hidden tokens were drawn anew, {told}"
    yield difference(subject(changed, mask, causal), out, empty & ~odd, what)

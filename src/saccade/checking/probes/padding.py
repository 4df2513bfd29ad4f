"""What stands behind the key mask never matters, nor how much of it there is.

Hidden tokens are drawn anew, small and huge; padding is added on the right; a padded example is compared with
the same example without padding; and a mask that hides nothing is compared with no mask. Only rows at real positions
are compared.
"""

from collections.abc import Iterator

import torch

from saccade.checking.compare import Finding, difference
from saccade.checking.draws import extended, first, replaced, right_padding, scaled, up_to
from saccade.checking.subject import Subject

FACTORS = (1.0, 100.0, 1e4)
MORE = (1, 7, 64, 300)


def padding(subject: Subject) -> Iterator[Finding]:
    """Rows at real positions, before and after something happens to the padding."""
    for causal in subject.terms.causal:
        for n in subject.usable(13, 100, 128):
            yield from _content(subject, n, causal)
            if not subject.draws_noise:
                yield from _amount(subject, n, causal)
                yield from _alone(subject, n, causal)


def _content(subject: Subject, n: int, causal: bool) -> Iterator[Finding]:
    inputs, told = subject.draw(n, b=3), _told(n, causal)
    for name, mask in subject.masks(3, n).items():
        want = subject(inputs, mask, causal)
        for factor in FACTORS:
            changed = replaced(inputs, ~mask, scaled(subject.draw(n, b=3), factor))
            size = f", {factor:g} times as large" if factor > 1 else ""
            what = f"when hidden tokens were drawn anew{size} ({told}, {name})"
            yield difference(subject(changed, mask, causal), want, mask, what)
    nothing_hidden = torch.ones(3, n, dtype=torch.bool)
    got, want = subject(inputs, nothing_hidden, causal), subject(inputs, None, causal)
    yield difference(got, want, nothing_hidden, f"when key_mask was all True instead of None ({told})")


def _amount(subject: Subject, n: int, causal: bool) -> Iterator[Finding]:
    inputs, mask = subject.draw(n, b=3), right_padding(3, n)
    want = subject(inputs, mask, causal)
    for more in (more for more in (*MORE, n) if subject.accepts(n + more)):
        longer = extended(inputs, subject.draw(more, b=3))
        hidden = torch.zeros(3, more, dtype=torch.bool)
        got = subject(longer, torch.cat((mask, hidden), dim=1), causal)
        what = f"when {more} more hidden tokens were added on the right ({_told(n, causal)})"
        yield difference(got[..., :n, :], want, mask, what)


def _alone(subject: Subject, n: int, causal: bool) -> Iterator[Finding]:
    inputs = subject.draw(n, b=3)
    for length in (length for length in (n // 2, 2 * n // 3) if subject.accepts(length)):
        mask = up_to([length, n, n], n)
        padded = subject(inputs, mask, causal)[:1, ..., :length, :]
        # The batch is cut, not taken apart: what other examples do is the business of `batch`.
        got = subject(first(inputs, length), None, causal)[:1]
        what = f"when the {length} tokens of its example stood without padding ({_told(n, causal)})"
        yield difference(got, padded, mask[:1, :length], what)


def _told(n: int, causal: bool) -> str:
    return f"n={n}, causal" if causal else f"n={n}"

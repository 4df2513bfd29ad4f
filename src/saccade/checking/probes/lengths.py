"""Any length works: the right shape, finite numbers, and the same answer whatever lengths came before."""

from collections.abc import Iterator

import torch

from saccade.checking.compare import Finding, difference, finite
from saccade.checking.subject import Subject

LENGTHS = (1, 2, 63, 250, 1000)


def lengths(subject: Subject) -> Iterator[Finding]:
    """Each length in rising and in falling order, each order on one copy of the target."""
    for causal in subject.terms.causal:
        rising, falling = subject.kept(), subject.kept()
        drawn = {n: subject.draw(n, b=1 if n == max(LENGTHS) else 2) for n in LENGTHS}
        outs = {n: rising(drawn[n], None, causal) for n in LENGTHS}
        for n in reversed(LENGTHS):
            rows = torch.ones(len(outs[n]), n, dtype=torch.bool)
            told = f"(n={n}{', causal' if causal else ''})"
            yield finite(outs[n], rows, told)
            what = f"when lengths were called in falling instead of rising order {told}"
            yield difference(falling(drawn[n], None, causal), outs[n], rows, what)
    if subject.terms.cross and len(subject.names) > 1:
        yield from _cross(subject)


def _cross(subject: Subject) -> Iterator[Finding]:
    for n_q, n_k in ((1, 63), (63, 1), (63, 250), (250, 63)):
        out = subject(subject.draw(n_q, n_k=n_k))
        yield finite(out, torch.ones(2, n_q, dtype=torch.bool), f"(n_q={n_q}, n_k={n_k})")

"""Queries in chunks, each placed by `q_start`, get what the whole call gives them.

Chunks of several sizes, on and off every tile grid, one query at a time on short inputs, and the last query alone as
in decoding. Without causality a chunk gets all keys; with it, those up to its own last query, and all keys, too.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch

from saccade.checking.calling import TargetFailure
from saccade.checking.compare import Finding, difference
from saccade.checking.draws import right_padding
from saccade.checking.subject import Subject
from saccade.checking.terms import NotClaimed
from saccade.shapes import Bool, Tensor

SIZES = {13: (1, 2, 5), 16: (1, 8), 250: (7, 64, 100), 256: (16, 64, 128), 640: (129, 300)}
"""For each length the sizes of its chunks."""


def chunk(subject: Subject) -> Iterator[Finding]:
    """Each row of the whole call, beside the same row of the call for its chunk alone.

    Raises:
        NotClaimed: it does not claim cross attention, and refuses queries that begin later than the keys.
    """
    if subject.draws_noise:
        return
    both = subject.terms.guessed or subject.terms.cross  # not causally, queries and keys are of two lengths
    if not both and (refusal := _refusal(subject)):
        raise NotClaimed(f"its claims do not name cross, and it refuses chunks ({refusal})")
    for causal in (causal for causal in subject.terms.causal if causal or both):
        for n in subject.usable(subject.one_of(13, 16), subject.one_of(250, 256), 640):
            for mask in (None, right_padding(2, n)) if subject.masked else (None,):
                yield from _chunks(subject, n, mask, causal, both)


def _chunks(subject: Subject, n: int, mask: Bool[Tensor, "b n"] | None, causal: bool, both: bool) -> Iterator[Finding]:
    inputs = subject.draw(n)
    want = subject(inputs, mask, causal)
    rows = torch.ones(2, n, dtype=torch.bool) if mask is None else mask
    cuts = {f"queries were computed in chunks of {size}": range(0, n, size) for size in SIZES.get(n, ())}
    cuts["the last query was computed alone"] = range(n - 1, n)
    for what, starts in cuts.items():
        bounds = list(pairwise((*starts, n)))
        if not all(subject.accepts(length) for length in {stop - start for start, stop in bounds}):
            continue
        for later in (False, True) if causal and both else (not causal,):
            got = want.clone()
            for start, stop in bounds:
                end = n if later else stop
                got[..., start:stop, :] = subject.part(inputs, start, stop, end, mask, causal)
            told = f"(n={n}{_settings(causal, later)}{'' if mask is None else ', right padding'})"
            yield difference(got, want, rows, f"when {what} {told}")


def _refusal(subject: Subject) -> str:
    """What the target says to a query that does not stand at the first key, if it refuses that."""
    n = subject.one_of(13, 16)
    try:
        subject.part(subject.draw(n), n - 1, n, n, None, True)
    except TargetFailure as failure:
        return str(failure)
    return ""


def _settings(causal: bool, later: bool) -> str:
    """How the chunks were called; nothing is aligned by itself, so later keys may stand behind a causal chunk."""
    return (", causal, all keys given" if later else ", causal") if causal else ""

"""What `torch.export` makes of the target gives the same, at other lengths and batch sizes than it was made from."""

from collections.abc import Iterator

import torch

from saccade.checking.compare import Finding, difference
from saccade.checking.draws import right_padding
from saccade.checking.subject import Subject

TRACED = (83, 192, 640)
"""The length of the one call that is exported: the first that works."""

LENGTHS = (1, 63, 130, 700)
"""Shorter than a chunk, a little longer, and so long that mechanisms change how they compute."""


def export(subject: Subject) -> Iterator[Finding]:
    """Each form, with a key mask if it takes one, exported once and run at every length that the target accepts."""
    if subject.training:  # a program is for inference
        return
    for causal in subject.terms.causal:
        yield from _form(subject, causal)


def _form(subject: Subject, causal: bool) -> Iterator[Finding]:
    n, masked = subject.one_of(*TRACED), subject.masked
    program = subject.exported(subject.draw(n, b=3), right_padding(3, n) if masked else None, causal)
    for n in subject.usable(*LENGTHS):
        b = 1 if n == max(LENGTHS) else 2
        inputs, mask = subject.draw(n, b=b), right_padding(b, n) if masked else None
        rows = torch.ones(b, n, dtype=torch.bool) if mask is None else mask
        words = f"n={n}{', causal' if causal else ''}{', right padding' if masked else ''}"
        got, want = program(inputs, mask, causal), subject(inputs, mask, causal)
        yield difference(got, want, rows, f"when the program that torch.export made was called instead ({words})")

"""No output depends on later tokens, nor on how many there are.

Three ways to find out: later tokens are drawn anew, also a hundred times as large (a maximum over the whole
sequence shows only then: performer-pytorch); later tokens are hidden by the key mask; later tokens are cut
off (bucket counts and random draws that follow the length show only then).
"""

from collections.abc import Iterable, Iterator

import torch

from saccade.checking.calling import TargetFailure
from saccade.checking.compare import Finding, difference
from saccade.checking.draws import Inputs, first, replaced, scaled
from saccade.checking.subject import Subject
from saccade.shapes import Bool, Tensor

FACTORS = (1.0, 4.0, 100.0)
CUTS = (0, 1, 2, 7, 32, 62, 63, 64, 100, 127, 128, 191, 248)
FEW_CUTS = (0, 7, 63, 100, 191)

LONG_CUTS = {
    2100: (1022, 1023, 1535, 2047, 2098),
    1000: (255, 256, 299, 319, 399, 499, 511, 512, 599, 639, 767, 799, 899, 998),
}
"""For each length that targets may refuse its cuts: seams of many sizes of chunks."""


def prefix_causality(subject: Subject) -> Iterator[Finding]:
    """Outputs up to a position, before and after something happens to the tokens behind it."""
    n = subject.usable(250, 256)[0]
    yield from _each_cut(subject, n, range(n - 1))
    for long, cuts in LONG_CUTS.items():
        yield from _each_cut(subject, long, cuts)
    for n in subject.usable(13, 250, 256):
        inputs = subject.draw(n)
        cuts = FEW_CUTS if n == 256 else CUTS
        yield from _later_tokens(subject, inputs, None, cuts, f"n={n}")
        yield from _truncated(subject, inputs, None, cuts, f"n={n}")
    n = subject.one_of(250, 256)
    for name, mask in subject.masks(2, n).items():
        inputs = subject.draw(n)
        yield from _later_tokens(subject, inputs, mask, FEW_CUTS, f"n={n}, {name}")
        yield from _truncated(subject, inputs, mask, FEW_CUTS, f"n={n}, {name}")


def _each_cut(subject: Subject, n: int, cuts: Iterable[int]) -> Iterator[Finding]:
    """One new draw behind every cut: a leak may sit at a single position, or at the seams of some chunk size.

    Of a long input that the target refuses there is nothing to find.
    """
    inputs, other = subject.draw(n, b=1), subject.draw(n, b=1)
    position = torch.arange(n)[None]
    try:
        want = subject(inputs, None, causal=True)
    except TargetFailure:
        if n in LONG_CUTS:
            return
        raise
    for p in cuts:
        changed = replaced(inputs, position > p, other)
        what = f"when tokens {p + 1} and later were drawn anew (n={n})"
        yield difference(subject(changed, None, causal=True), want, position <= p, what)


def _later_tokens(
    subject: Subject,
    inputs: Inputs,
    mask: Bool[Tensor, "b n"] | None,
    cuts: Iterable[int],
    told: str,
) -> Iterator[Finding]:
    b, n = len(inputs[0]), inputs[0].shape[-2]
    position = torch.arange(n).expand(b, n)
    want = subject(inputs, mask, causal=True)
    nothing_hidden = torch.ones(b, n, dtype=torch.bool) if mask is None and subject.masked else mask
    shown = subject(inputs, nothing_hidden, causal=True)
    for p in sorted({n // 2, n - 2} | {cut for cut in cuts if cut < n - 1}):
        rows = (position <= p) if mask is None else mask & (position <= p)
        for factor in FACTORS if n < 64 else FACTORS[::2]:
            changed = replaced(inputs, position > p, scaled(subject.draw(n, b=b), factor))
            size = f", {factor:g} times as large" if factor > 1 else ""
            what = f"when tokens {p + 1} and later were drawn anew{size} ({told})"
            yield difference(subject(changed, mask, causal=True), want, rows, what)
        if subject.masked and rows.any(dim=1).all():  # an example with nothing left is for `empty_rows`
            what = f"when key_mask hid tokens {p + 1} and later ({told})"
            yield difference(subject(inputs, rows, causal=True), shown, rows, what)


def _truncated(
    subject: Subject,
    inputs: Inputs,
    mask: Bool[Tensor, "b n"] | None,
    cuts: Iterable[int],
    told: str,
) -> Iterator[Finding]:
    if subject.draws_noise:
        return
    b, n = len(inputs[0]), inputs[0].shape[-2]
    want = subject(inputs, mask, causal=True)
    for length in (cut + 1 for cut in cuts if cut + 1 < n and subject.accepts(cut + 1)):
        part = torch.ones(b, length, dtype=torch.bool) if mask is None else mask[:, :length]
        if not part.any(dim=1).all():
            continue
        got = subject(first(inputs, length), None if mask is None else part, causal=True)
        what = f"when the sequence was cut off after {length} tokens ({told})"
        yield difference(got, want[..., :length, :], part, what)

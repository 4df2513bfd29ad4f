"""Outputs are means of visible values: attention is linear in them, so the identity as values gives its weights.

They must be non-negative, sum to one, be zero at hidden keys and (causal) at later ones, and other values must give
the sums that the weights say. A query that may see nothing has no weights. Where values can only have one
dim, the identity goes in slices, of long inputs only some.
"""

import math
from collections.abc import Callable, Iterator

import torch

from saccade.checking.calling import TargetFailure
from saccade.checking.compare import Finding, difference, place
from saccade.checking.draws import spread
from saccade.checking.subject import Subject
from saccade.shapes import Bool, Float, Int, Tensor

LONG = 640
SLICES = 8
"""As many slices of a long identity are looked at, where it cannot be given whole."""
EPSILON = 1e-5
"""What a small number, added to the sum that weights are divided by, takes from 1: without claims it is no fault."""
HINT = " (are its outputs not meant to be means of values? then: --skip weights)"


def weights(subject: Subject) -> Iterator[Finding]:
    """The weights of every query, and what other values give."""
    if subject.draws_noise:
        return
    for causal in subject.terms.causal:
        for n in subject.usable(13, 63, subject.one_of(100, 128), LONG):
            kinds = list(subject.masks(2, n).items())
            for name, mask in [("no mask", None), *(kinds[-1:] if n == LONG else kinds)]:
                told = f"(n={n}{', causal' if causal else ''}, {name}){HINT if subject.terms.guessed else ''}"
                yield from _look(subject, n, mask, causal, told)


def _look(subject: Subject, n: int, mask: Bool[Tensor, "b n"] | None, causal: bool, told: str) -> Iterator[Finding]:
    q, k, v = subject.draw(n)

    def outputs(values: Float[Tensor, "n e"]) -> Float[Tensor, "b h n e"]:
        return subject((q, k, values.expand(*k.shape[:2], *values.shape)), mask, causal)

    columns, found = _implied(subject, n, outputs)
    total = outputs(torch.ones(n, subject.value_dim, dtype=torch.float64))[..., :1]
    real = torch.ones(2, n, dtype=torch.bool) if mask is None else mask
    allowed = real[:, None] & torch.ones(n, n, dtype=torch.bool).tril(0 if causal else n)
    empty = ~allowed.any(dim=2)
    barred = ~allowed[:, None, :, columns]
    yield _largest(torch.where(barred, found.abs(), 0), real | empty, columns, f"the key is hidden or later {told}")
    yield _largest((-found).clamp(min=0), real, columns, f"it is negative {told}")
    # A pattern may show a query nothing at all: the claim is only about queries that see anything.
    wanted = torch.ones_like(total) if subject.terms.guessed else (total != 0).to(total)
    sums = difference(total, wanted, real, f"from 1 {told}", "sum of weights")
    if not (subject.terms.guessed and sums.violation <= EPSILON):
        yield sums
    values = torch.zeros(n, subject.value_dim, dtype=torch.float64)
    values[columns] = v[0, 0, columns]
    yield difference(outputs(values), found @ values[columns], real, f"from the sum of weighted values {told}")


def _implied(subject: Subject, n: int, outputs: Callable[[Tensor], Tensor]) -> tuple[Int[Tensor, " m"], Tensor]:
    """For some keys (all where that is not too much) their places, and the weight of each for every query."""
    identity = torch.eye(n, dtype=torch.float64)
    try:
        return torch.arange(n), outputs(identity)
    except TargetFailure:
        slices = identity.split(subject.value_dim, dim=1)
    step = -(-len(slices) // SLICES) if n == LONG else 1
    narrow = [torch.nn.functional.pad(part, (0, subject.value_dim - part.shape[1])) for part in slices[::step]]
    columns = torch.arange(n).split(subject.value_dim)[::step]
    found = torch.cat([outputs(part) for part in narrow], dim=-1)
    return torch.cat(columns), found[..., : sum(map(len, columns))]


def _largest(
    gap: Float[Tensor, "b h n m"], rows: Bool[Tensor, "b n"], columns: Int[Tensor, " m"], told: str
) -> Finding:
    """The weight in those rows that is wrong by most."""
    gap = torch.where(spread(rows, gap), gap, 0)
    gap = torch.where(gap.isfinite(), gap, math.inf)
    worst = tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))
    size, key = gap[worst].item(), columns[worst[-1]]
    return Finding(size, f"weight of key {key} at {place(worst)} is off by {size:.1e}: {told}")

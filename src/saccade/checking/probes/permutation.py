"""The order of keys never matters, without causality.

On `"qkv"` keys, values and the key mask change places together and no output moves; on `"x"` tokens change
places and the outputs go with them. Windows and positions are no defect, so without claims a target is held to
this only if the order does not matter to it in the plainest case: short, unmasked, in evaluation. Windows and blocks
may be wider than that: where the order matters to a longer plain call, and it matters too where a query stands,
it is by design. What a fault does to keys, it does to them for every query.
"""

from collections.abc import Iterator

import torch

from saccade.checking.compare import Finding, difference
from saccade.checking.draws import reordered
from saccade.checking.subject import Subject
from saccade.checking.terms import NotClaimed
from saccade.shapes import Bool, Int, Tensor


def permutation(subject: Subject) -> Iterator[Finding]:
    """Outputs before and after tokens changed places.

    Raises:
        NotClaimed: there are no claims, and the order of keys matters by design.
    """
    if subject.draws_noise:
        return
    lengths = subject.usable(13, 63, 64, subject.one_of(250, 256), 640)
    for n in lengths:
        mask = torch.ones(2, n, dtype=torch.bool)
        for order in (torch.arange(n).flip(0).expand(2, n), _shuffled(subject, mask)):
            found = _moved(subject, n, None, order, f"(n={n})")
            if subject.terms.guessed and not subject.training and found.violation > subject.rounding:
                _excuse(subject, n, shortest=n == lengths[0])
            yield found
    for n in lengths:
        for name, mask in subject.masks(2, n).items():
            # Right padding stays on the right: that is all that some promise.
            order = _shuffled(subject, mask if name == "right padding" else torch.ones_like(mask))
            yield _moved(subject, n, mask, order, f"(n={n}, {name})")


def _moved(subject: Subject, n: int, mask: Bool[Tensor, "b n"] | None, order: Int[Tensor, "b n"], told: str) -> Finding:
    inputs = subject.draw(n)
    want = subject(inputs, mask)
    changed = reordered(inputs, order)
    moved = None if mask is None else mask.gather(1, order)
    rows = torch.ones(2, n, dtype=torch.bool) if moved is None else moved
    if len(inputs) == 1:
        (want,) = reordered((want,), order)
        return difference(subject(changed, moved), want, rows, f"when tokens changed places {told}")
    if mask is not None:
        rows = rows & mask  # the query at a hidden position is nobody's
    got = subject((inputs[0], *changed[1:]), moved)
    return difference(got, want, rows, f"when keys, values and key mask changed places together {told}")


def _shuffled(subject: Subject, movable: Bool[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """A random order of the movable positions, which come first; the others stay behind them."""
    keys = subject.noise(movable).masked_fill(~movable, torch.inf)
    return keys.argsort(dim=1, stable=True)


def _excuse(subject: Subject, n: int, shortest: bool) -> None:
    if shortest:
        raise NotClaimed(f"the order of keys matters by design, already at n={n}")
    if _queries_have_places(subject, n):
        raise NotClaimed(f"the order of keys matters by design: at n={n} it also matters where a query stands")


def _queries_have_places(subject: Subject, n: int) -> bool:
    """Whether three queries that are alike take from the keys in different ways, because of where they stand."""
    queries = [0, n // 2, n - 1]
    inputs = subject.draw(n, b=1)
    for tensor in inputs:
        tensor[..., queries, :] = tensor[..., :1, :].clone()
    out = subject(inputs)
    pull, taken = subject.noise(out[..., 0, :]), []
    for query in queries:
        cotangent = torch.zeros_like(out)
        cotangent[..., query, :] = pull
        taken.append(subject.gradients(inputs, cotangent)[-1])
    others = torch.ones(1, n, dtype=torch.bool)
    others[:, queries] = False  # on x, a token takes from itself in its own way
    return any(difference(each, taken[0], others, "").violation > subject.rounding for each in taken[1:])

"""Gradients equal finite differences, for every input.

The slope along a random direction, by central differences, against the gradient's. A short input is moved one
position at a time, which finds a single wrong row; a long one, on which blocked paths run, along whole random
directions. Hashing and top-k jump and ReLU bends at some inputs: the steps are short, and of up to three directions
the best counts, for a jump spoils one of them and a wrong gradient spoils all.
"""

import math
from collections.abc import Iterator

import torch

from saccade.checking.compare import Finding
from saccade.checking.draws import Inputs, spread
from saccade.checking.subject import Subject
from saccade.shapes import Bool, Tensor

DIRECTIONS = 3
NEGLIGIBLE = 1e-6


def gradients(subject: Subject) -> Iterator[Finding]:
    """Slopes by gradient and by finite differences."""
    for causal in subject.terms.causal:
        for n in (subject.one_of(11, 16, 64), subject.one_of(200, 256)):
            kinds = subject.masks(2, n)
            kinds.pop("left padding", None)  # its first causal queries see nothing: for `empty_rows`
            for name, mask in {"no mask": None, **kinds}.items():
                told = f"(n={n}{', causal' if causal else ''}, {name})"
                yield from _slopes(subject, n, mask, causal, told)


def _slopes(subject: Subject, n: int, mask: Bool[Tensor, "b n"] | None, causal: bool, told: str) -> Iterator[Finding]:
    inputs = subject.draw(n)
    like = subject(inputs, mask, causal)
    rows = torch.ones(2, n, dtype=torch.bool) if mask is None else mask
    cotangent = torch.where(spread(rows, like), subject.noise(like), 0)
    found = subject.gradients(inputs, cotangent, mask, causal)
    size = max(gradient.norm().item() for gradient in found)
    for i, name in enumerate(subject.names):
        for where, at in _places(n):
            gap = math.inf
            for _ in range(DIRECTIONS):
                direction = torch.where(at[:, None], subject.draw(n)[i], 0)
                expected = _difference(subject, inputs, i, direction, cotangent, mask, causal)
                slope = (found[i] * direction).sum().item()
                gap = min(gap, _relative(slope, expected, found[i], at, size))
                if gap < NEGLIGIBLE:
                    break
            yield Finding(gap, f"gradient of {name}{where} is not the slope of the output {told}")


def _places(n: int) -> Iterator[tuple[str, Bool[Tensor, " n"]]]:
    """Which positions to move, and what to call them: each alone where there are few, else all together."""
    if n > 16:
        yield "", torch.ones(n, dtype=torch.bool)
        return
    for position in range(n):
        yield f" at position {position}", torch.arange(n) == position


def _difference(
    subject: Subject,
    inputs: Inputs,
    i: int,
    direction: Tensor,
    cotangent: Tensor,
    mask: Bool[Tensor, "b n"] | None,
    causal: bool,
) -> float:
    """The slope of `sum(output * cotangent)` as input i moves along the direction, by a central difference."""
    step = 1e-2 if subject.single else 1e-7

    def output(sign: int) -> Tensor:
        moved = tuple(x + sign * step * direction if j == i else x for j, x in enumerate(inputs))
        return subject(moved, mask, causal)

    change = torch.where(cotangent != 0, output(1) - output(-1), 0)
    return (change * cotangent).sum().item() / (2 * step)


def _relative(slope: float, expected: float, gradient: Tensor, at: Bool[Tensor, " n"], size: float) -> float:
    """Their distance, relative to the slopes to expect at those positions.

    An input that hardly matters there is measured by a thousandth of the largest gradient of all.
    """
    usual = gradient[..., at, :].norm().item()
    scale = max(abs(slope), abs(expected), usual, 1e-3 * size) or 1.0
    gap = abs(slope - expected) / scale
    return math.inf if math.isnan(gap) else gap

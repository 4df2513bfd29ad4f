"""How far two outputs are apart, and where, in words a user can act on."""

import math
from dataclasses import dataclass

import torch

from saccade.checking.draws import spread
from saccade.shapes import Bool, Float, Tensor


@dataclass(frozen=True)
class Finding:
    """One comparison: its largest relative difference (`inf` for NaN or inf) and where that is."""

    violation: float
    where: str


def difference(
    got: Float[Tensor, "b ... n e"],
    want: Float[Tensor, "b ... n e"],
    rows: Bool[Tensor, "b n"],
    told: str,
    what: str = "output",
) -> Finding:
    """The largest difference in those rows, relative to the largest number that was wanted there.

    Args:
        got: what the target gave.
        want: what it should have given: its own answer to an equivalent question.
        rows: the rows that are compared.
        told: what was changed, such as "when the padding changed (n=100)".
        what: what the numbers are.
    """
    compared = spread(rows, got)
    gap = torch.where(compared, (got - want).abs(), 0)
    worst = _worst(torch.where(gap.isfinite(), gap, math.inf))
    if not gap[worst].isfinite():
        bad = got if not got[worst].isfinite() else want
        return Finding(math.inf, f"{what} at {place(worst)} is {bad[worst].item()} {told}")
    scale = _size(want, compared) or _size(got, compared) or 1.0
    violation = gap[worst].item() / scale
    return Finding(violation, f"{what} at {place(worst)} moved by {violation:.1e} (relative) {told}")


def finite(got: Float[Tensor, "b ... n e"], rows: Bool[Tensor, "b n"], told: str, what: str = "output") -> Finding:
    """Nothing found, or the first place in those rows that is NaN or inf."""
    return difference(got, torch.zeros_like(got), rows & _not_finite(got), told, what)


def zero(
    got: Float[Tensor, "b ... n e"],
    rows: Bool[Tensor, "b n"],
    told: str,
    what: str = "output",
    *,
    beside: Float[Tensor, "..."],
) -> Finding:
    """The largest number in those rows, which should hold zeros, relative to the largest finite one in `beside`."""
    size = torch.where(spread(rows, got), got.abs(), 0)
    worst = _worst(torch.where(size.isfinite(), size, math.inf))
    usual = torch.where(beside.isfinite(), beside.abs(), 0).max().item()
    violation = size[worst].item() / (usual or 1.0) if size[worst].isfinite() else math.inf
    return Finding(violation, f"{what} at {place(worst)} is {got[worst].item():.3g}, not 0, {told}")


def place(index: tuple[int, ...]) -> str:
    """`position 3 (batch 0, head 1)` from an index into `[b h n e]` or `[b n c]`."""
    head = f", head {index[1]}" if len(index) == 4 else ""
    return f"position {index[-2]} (batch {index[0]}{head})"


def _worst(gap: Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))


def _size(tensor: Tensor, compared: Bool[Tensor, "b ... n 1"]) -> float:
    size = torch.where(compared, tensor.abs(), 0)
    return torch.where(size.isfinite(), size, 0).max().item()


def _not_finite(tensor: Float[Tensor, "b ... n e"]) -> Bool[Tensor, "b n"]:
    bad = ~tensor.isfinite().all(dim=-1)
    return bad.any(dim=1) if bad.ndim == 3 else bad

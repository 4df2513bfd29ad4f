"""Layer norm without scale and bias, as Algorithm 1 of the Routing Transformer has it, also in place in a workspace.

Cost: O(n d) time; in a workspace no memory but for one number a row.
"""

from typing import NamedTuple

import torch
from torch.nn.functional import layer_norm

from saccade.attention.backends._tiles import Workspace
from saccade.shapes import Bool, Float, Tensor

EPS = 1e-5
"""Under the root."""

ROUNDING = 16
"""A row whose numbers differ by less than so many roundings is normalised to zeros: what is left of it is rounding."""


def normalised(x: Float[Tensor, "... n d"]) -> Float[Tensor, "... n d"]:
    """The layer norm of each row, with gradients."""
    mean = x.detach().mean(-1, keepdim=True)
    variance = (x.detach() - mean).square_().mean(-1, keepdim=True)
    return layer_norm(x, x.shape[-1:], eps=EPS).masked_fill(_is_rounding(variance, mean), 0)


def _is_rounding(variance: Float[Tensor, "... n 1"], mean: Float[Tensor, "... n 1"]) -> Bool[Tensor, "... n 1"]:
    return variance <= (mean * (ROUNDING * torch.finfo(mean.dtype).eps)).square_()


def filled(work: Workspace, name: str, x: Float[Tensor, "m n d"]) -> Float[Tensor, "rows d"]:
    """A copy in the workspace, one head after the other, and behind them a row of zeros."""
    rows = work.take(name, x.shape[0] * x.shape[1] + 1, x.shape[2])
    rows[:-1].view_as(x).copy_(x)
    rows[-1].zero_()
    return rows


class Unit(NamedTuple):
    """Normalised rows of some heads.

    Attributes:
        rows: one head after the other, and a row of zeros.
        x: the same without that.
        factor: what each row was multiplied by.
    """

    rows: Float[Tensor, "rows d"]
    x: Float[Tensor, "m n d"]
    factor: Float[Tensor, "m n 1"]


def normalise(work: Workspace, name: str, x: Float[Tensor, "m n d"]) -> Unit:
    """The same in the buffer `name` of the workspace: torch's kernel takes more than twice as long for short rows."""
    rows = filled(work, name, x)
    unit = rows[:-1].view(x.shape)
    mean = unit.mean(2, keepdim=True)
    unit.sub_(mean)
    variance = torch.mul(unit, unit, out=work.take("square", *unit.shape)).mean(2, keepdim=True)
    nothing = _is_rounding(variance, mean)
    factor = variance.add_(EPS).rsqrt_().masked_fill_(nothing, 0)
    return Unit(rows, unit.mul_(factor), factor)


def norm_backward(grad: Float[Tensor, "m n d"], unit: Unit) -> Float[Tensor, "m n d"]:
    """The gradient of what was normalised. Spoils both."""
    inner = (grad * unit.x).mean(2, keepdim=True)
    return grad.sub_(grad.mean(2, keepdim=True)).sub_(unit.x.mul_(inner)).mul_(unit.factor)

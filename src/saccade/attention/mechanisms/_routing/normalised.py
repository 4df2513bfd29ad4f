"""Layer norm without scale and bias, as Algorithm 1 of the Routing Transformer has it, also in place in a workspace.

Cost: O(n d) time; in a workspace no memory but for one number a row.
"""

from typing import NamedTuple

import torch
from torch.nn.functional import layer_norm

from saccade.attention.backends._tiles import Workspace
from saccade.shapes import Float, Tensor

EPS = 1e-5
"""Under the root."""


def normalised(x: Float[Tensor, "... n d"]) -> Float[Tensor, "... n d"]:
    """The layer norm of each row, with gradients."""
    return layer_norm(x, x.shape[-1:], eps=EPS)


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
    unit.sub_(unit.mean(2, keepdim=True))
    square = torch.mul(unit, unit, out=work.take("square", *unit.shape))
    factor = square.mean(2, keepdim=True).add_(EPS).rsqrt_()
    return Unit(rows, unit.mul_(factor), factor)


def norm_backward(grad: Float[Tensor, "m n d"], unit: Unit) -> Float[Tensor, "m n d"]:
    """The gradient of what was normalised. Spoils both."""
    inner = (grad * unit.x).mean(2, keepdim=True)
    return grad.sub_(grad.mean(2, keepdim=True)).sub_(unit.x.mul_(inner)).mul_(unit.factor)

"""Queries and keys as unit vectors, scaled in each dim by what is learned: what random features are made of.

With `w` normal, features of sigma * x / temperature along w are those of x along sigma * w / temperature, the paper's
reparametrisation, and the gradient of sigma is one of the inputs.

Cost: O(n d) time; kept are the inputs and one number a row.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from saccade.shapes import Float, Tensor

SHORTEST = 1e-3
"""A shorter vector is taken as if it were so long, so that its gradient stays in bounds: zero stays zero."""


def scaled_units(
    x: Float[Tensor, "b g n d"], sigma: Float[Tensor, "g d"], temperature: float
) -> Float[Tensor, "b g n d"]:
    """What sigma * x / (|x| temperature) is, for each key head's own sigma."""
    return _ScaledUnits.apply(x, sigma.to(x.dtype), temperature)


class _ScaledUnits(torch.autograd.Function):
    """One pass to measure, one to scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sigma: Tensor, temperature: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        ctx.save_for_backward(x, length, sigma)
        ctx.temperature = temperature
        return torch.div(x, length.clamp(min=SHORTEST)).mul_(sigma[:, None] / temperature)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, length, sigma = ctx.saved_tensors
        divided = length.clamp(min=SHORTEST)
        unit, to_sigma = x / divided, None
        if ctx.needs_input_grad[1]:
            to_sigma = (grad * unit).sum((0, 2)).div_(ctx.temperature)
        to_x = grad * (sigma[:, None] / ctx.temperature)
        along = (to_x * unit).sum(-1, keepdim=True).masked_fill_(length < SHORTEST, 0)
        return to_x.addcmul_(unit, along, value=-1).div_(divided), to_sigma, None

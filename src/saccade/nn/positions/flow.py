"""Positions as a flow: FLOATER, a learned differential equation (Liu et al. 2020).

p(t) is the solution of dp/dt = h(t, p), so p(t + dt) = p(t) + the integral of h from t to t + dt; position i stands
at t = i dt. h is a network of two layers and p(0) is learned. A solution goes on past every length that was trained
on. Only the input gets positions here: the paper's best models also add them in each block, from the same h.

Cost: the solver (Dormand and Prince, adaptive) takes as many steps as the flow bends, in sequence: O(c^2) time each,
and O(n c) to read it off. Plain backpropagation keeps all steps; `adjoint=True` solves backwards again in constant
memory, with gradients as exact as the solver is. Needs torchdiffeq: `pip install 'saccade[flow]'`.
"""

from importlib import import_module
from types import ModuleType

import torch
from torch import nn
from torch.nn.functional import linear

from saccade.errors import must_be
from saccade.nn.positions._one_after_another import OneAfterAnother
from saccade.shapes import Float, Tensor

STEP = 0.1
"""Time from one position to the next."""

REACH = 3.0
"""How far a flow goes over the longest input before training, in slopes of torch's usual size: about as far as a token
is long. Without it the last positions of long inputs would drown their tokens."""

ERROR = 1e-5
"""What a step of the solver may be off, absolutely and relative to p, in fp32 and in fp64."""


class Slope(nn.Module):
    """h(t, p): the direction in which a position moves on. Computes in fp32 or better.

    Args:
        width: numbers of a position; as many are between the layers.
        longest: the time at which the longest input ends: the network sees time as a share of it.
    """

    def __init__(self, width: int, longest: float) -> None:
        super().__init__()
        self.longest = longest
        self.inner = nn.Linear(width + 1, width)
        self.outer = nn.Linear(width, width)

    def forward(self, time: Float[Tensor, ""], p: Float[Tensor, " c"]) -> Float[Tensor, " c"]:
        """The slope at one time."""
        seen = torch.cat([p, (time / self.longest).to(p)[None]])
        hidden = linear(seen, self.inner.weight.to(p), self.inner.bias.to(p)).tanh()
        return linear(hidden, self.outer.weight.to(p), self.outer.bias.to(p))


class Flow(OneAfterAnother):
    """FLOATER's flow, added to the input: any length works, also past `max_length`.

    Args:
        width: the model width.
        max_length: the longest input that is expected, which sets the scale of time.
        adjoint: whether gradients come from a second solution, backwards in time, in constant memory.

    Raises:
        ModuleNotFoundError: torchdiffeq is not installed; the message says how to install it.
        ValueError: `max_length` below 1.
    """

    def __init__(self, width: int, max_length: int, adjoint: bool = False) -> None:
        super().__init__()
        if max_length < 1:
            raise ValueError(must_be("max_length", "at least 1", max_length))
        _solver()
        self.adjoint = adjoint
        self.start = nn.Parameter(torch.randn(width) * 0.02)
        self.slope = Slope(width, max_length * STEP)
        with torch.no_grad():
            for weight in self.slope.outer.parameters():
                weight.mul_(min(1.0, REACH / self.slope.longest))

    def vectors(self, length: int) -> Float[Tensor, "n c"]:
        """The flow at as many times."""
        start = self.start.to(torch.promote_types(self.start.dtype, torch.float32))
        with torch.autocast(start.device.type, enabled=False):
            if length == 1:
                return start[None]
            times = torch.arange(length, dtype=start.dtype, device=start.device) * STEP
            solve = _solver().odeint_adjoint if self.adjoint else _solver().odeint
            return solve(self.slope, start, times, rtol=ERROR, atol=ERROR, method="dopri5")


def _solver() -> ModuleType:
    try:
        return import_module("torchdiffeq")
    except ModuleNotFoundError as error:
        if error.name not in ("torchdiffeq", "scipy", "numpy"):
            raise
        raise ModuleNotFoundError("flow positions need torchdiffeq: pip install 'saccade[flow]'") from error

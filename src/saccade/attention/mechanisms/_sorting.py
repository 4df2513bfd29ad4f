"""Which block is to stand where: pooled blocks, and logits balanced into a soft permutation of them.

Source: "Sparse Sinkhorn Attention" (Tay et al. 2020), sections 3.1 to 3.3, where the balancing is Sinkhorn's (1964).
All of it is on one vector a block and one number a pair of blocks.

Cost: O(n d) for the sums, O(n^2 / block^2) for each turn of the balancing; only the logits are kept.
"""

import math
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from saccade.shapes import Bool, Float, Tensor


def pooled(
    x: Float[Tensor, "b h j t d"], real: Float[Tensor, "b j t"] | None, up_to_first: bool = False
) -> Float[Tensor, "b h j d"]:
    """The sum of each block over the root of how many tokens it is of: its numbers are as large as those of a token.

    Args:
        x: blocks, zero where hidden.
        real: 1 for real positions and 0 for hidden ones; everything is real if not given.
        up_to_first: sum instead all that is known when the block begins: everything up to its first token.
    """
    sums = x.sum(3)
    if up_to_first:
        sums = _before(sums, 2) + x[:, :, :, 0]
    return sums * _counts(x, real, up_to_first).clamp(min=1).rsqrt()


def _counts(
    x: Float[Tensor, "b h j t d"], real: Float[Tensor, "b j t"] | None, up_to_first: bool
) -> Float[Tensor, "#b 1 j 1"]:
    """How many tokens there are in each sum."""
    real = x.new_ones(1, *x.shape[2:4]) if real is None else real
    total = real.sum(2)
    if up_to_first:
        total = _before(total, 1) + real[..., 0]
    return total[:, None, :, None]


def _before(x: Float[Tensor, "b ... j d"] | Float[Tensor, "b j"], dim: int) -> Tensor:
    """What all blocks before each one add up to. Those behind it are not even touched and taken away again."""
    earlier = x.narrow(dim, 0, x.shape[dim] - 1).cumsum(dim)
    return pad(earlier, (0, 0) * (x.ndim - 1 - dim) + (1, 0))


def gumbel(like: Float[Tensor, "b h j j2"]) -> Float[Tensor, "b h j j2"]:
    """Noise from torch's global generator whose largest entry chooses as a softmax of the logits draws."""
    return -torch.empty_like(like).exponential_().log()


def balanced(
    logits: Float[Tensor, "b h i j"], seen: Bool[Tensor, "#b 1 i j"], iterations: int, causal: bool
) -> Float[Tensor, "b h i j"]:
    """The soft permutation: each row sums to one, or to nothing where it sees nothing."""
    return _Balanced.apply(logits, seen, iterations, causal)


def turned(
    logits: Float[Tensor, "b h i j"],
    seen: Bool[Tensor, "#b 1 i j"],
    iterations: int,
    taken: Float[Tensor, "b h turns j"] | None,
) -> tuple[Float[Tensor, "b h i j"], Float[Tensor, "b h turns j"] | None]:
    """Rows and columns normalised in turn, as logarithms, and the rows once more.

    Args:
        logits: of block j in place i.
        seen: which blocks may stand there.
        iterations: turns.
        taken: makes it causal: what the rows before these took of each block at each turn. A column is then divided
            by what the rows so far have taken of it, so that no row depends on a later one.

    Returns:
        The soft permutation, and what all rows have taken if it is causal.
    """
    x, totals = normalised(logits.masked_fill(~seen, -math.inf), 3), []
    for turn in range(iterations):
        if taken is None:
            x = normalised(x, 2)
        else:
            total = taken[:, :, turn, None] + x.exp().cumsum(2)
            totals.append(total[:, :, -1])
            x = x - total.clamp(min=torch.finfo(x.dtype).tiny).log()
        x = normalised(x, 3)
    return x.exp(), None if taken is None else torch.stack(totals, 2)


def normalised(x: Float[Tensor, "b h i j"], dim: int) -> Float[Tensor, "b h i j"]:
    """Logarithms whose exponentials sum to one. Where all are -inf they stay so, and have no gradient."""
    limits = torch.finfo(x.dtype)
    highest = x.detach().amax(dim, keepdim=True).clamp(min=limits.min)
    return x - (highest + (x - highest).exp().sum(dim, keepdim=True).clamp(min=limits.tiny).log())


class _Balanced(torch.autograd.Function):
    """All turns, gone through again on the way back: of what they pass through nothing is kept but the logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, seen: Tensor, iterations: int, causal: bool) -> Tensor:
        ctx.save_for_backward(logits, seen)
        ctx.plan = iterations, causal
        return _all_turns(logits, seen, iterations, causal)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        logits, seen = ctx.saved_tensors
        with torch.enable_grad():
            logits = logits.detach().requires_grad_()
            order = _all_turns(logits, seen, *ctx.plan)
        return *torch.autograd.grad(order, logits, grad), None, None, None


def _all_turns(logits: Tensor, seen: Tensor, iterations: int, causal: bool) -> Tensor:
    b, h, _, blocks = logits.shape
    return turned(logits, seen, iterations, logits.new_zeros(b, h, iterations, blocks) if causal else None)[0]

"""Which block is to stand where: tokens in blocks, pooled, and logits balanced into a soft permutation of blocks.

Source: "Sparse Sinkhorn Attention" (Tay et al. 2020), sections 3.1 to 3.3, where the balancing is Sinkhorn's (1964).
But for the sums all of it is on one vector a block and one number a pair of blocks.

Cost: O(n d) for the sums, O(n^2 / block^2) for each turn of the balancing; only the logits are kept.
"""

import math
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from saccade.attention.inputs import needed
from saccade.attention.states import state_dtype
from saccade.shapes import Bool, Float, Tensor


class Blocks(NamedTuple):
    """Tokens in blocks, zero where hidden and where the last block is filled up.

    Attributes:
        q: queries.
        k: keys.
        v: values.
        real: 1 for real tokens and 0 for others; none if every position of every block is seen.
    """

    q: Float[Tensor, "b h j t d"]
    k: Float[Tensor, "b g j t d"]
    v: Float[Tensor, "b g j t e"]
    real: Float[Tensor, "b j t"] | None

    @property
    def live(self) -> Bool[Tensor, "#b j"]:
        """Blocks with a real token."""
        if self.real is None:
            return torch.ones(1, self.q.shape[2], dtype=torch.bool, device=self.q.device)
        return self.real.any(2)


def blocks_of(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g n d"],
    v: Float[Tensor, "b g n e"],
    key_mask: Bool[Tensor, "b n"] | None,
    block: int,
    causal: bool,
) -> Blocks:
    """In fp32 or better; blocks are at most as long as the sequence."""
    (b, _, n, _), wide = q.shape, state_dtype(q.dtype)
    size, key_mask = min(block, n), needed(key_mask)
    fill, real = -n % size, None
    if key_mask is not None:
        q, k, v = (x.masked_fill(~key_mask[:, None, :, None], 0) for x in (q, k, v))
        real = key_mask.to(wide)
    elif fill or causal:  # block 0 has nothing before it
        real = q.new_ones(b, n, dtype=wide)
    q, k, v = ((pad(x, (0, 0, 0, fill)) if fill else x).to(wide).unflatten(2, (-1, size)) for x in (q, k, v))
    return Blocks(q, k, v, None if real is None else pad(real, (0, fill)).unflatten(1, (-1, size)))


def seen(blocks: Blocks, causal: bool) -> Bool[Tensor, "#b 1 i j"]:
    """Which blocks may stand where: those with a real token. Causally those before, as far as is known by then."""
    live = blocks.live[:, None]
    if causal:
        return live[:, :, None] & live.new_ones(live.shape[2], live.shape[2]).tril(-1)
    return live[:, :, None] & live[..., None]


def first_live(order: Float[Tensor, "b h i j"], blocks: Blocks, cut: int) -> Float[Tensor, "b h s j"]:
    """The first rows that belong to a block with a real token."""
    if blocks.real is None:
        return order[:, :, :cut]
    first = (~blocks.live).to(torch.uint8).argsort(dim=1, stable=True)[:, :cut]
    return order.gather(2, first[:, None, :, None].expand(-1, order.shape[1], -1, order.shape[3]))


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
    if torch.compiler.is_compiling():  # which keeps what all turns pass through, as it traces no gradient in a gradient
        return _all_turns(logits, seen, iterations, causal)
    return _Balanced.apply(logits, seen, iterations, causal)


def turned(
    logits: Float[Tensor, "b h i j"],
    seen: Bool[Tensor, "#b 1 i j"],
    iterations: int,
    taken: Float[Tensor, "b h turns j"] | None,
) -> tuple[Float[Tensor, "b h i j"], list[Float[Tensor, "b h j"]]]:
    """Rows and columns normalised in turn, as logarithms, and the rows once more.

    Args:
        logits: of block j in place i.
        seen: which blocks may stand there.
        iterations: turns.
        taken: makes it causal: what the rows before these took of each block at each turn. A column is then divided
            by what the rows so far have taken of it, so that no row depends on a later one.

    Returns:
        The soft permutation, and if it is causal what all rows have taken at each turn.
    """
    totals: list[Tensor] = []
    x = normalised(logits.masked_fill(~seen, -math.inf), 3)
    for turn in range(iterations):
        if taken is None:
            x = normalised(x, 2)
        else:
            total = taken[:, :, turn, None] + x.exp().cumsum(2)
            totals.append(total[:, :, -1])
            x = x - total.clamp(min=_least(x)).log()
        x = normalised(x, 3)
    return x.exp(), totals


def _least(x: Tensor) -> float:
    """The least that a column is divided by: large enough that gradients through the division stay finite."""
    return torch.finfo(x.dtype).tiny ** 0.75


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

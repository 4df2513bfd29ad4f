"""Queries against what the features of the keys attend to: a softmax over features, times a matrix for each head.

Cost: O(n d e) time; memory O(n e), and a workspace for the softmax of some thousands of rows.
"""

from typing import Any

import torch
from einops import rearrange
from torch.autograd.function import once_differentiable

from saccade.attention.mechanisms._efficient.features import softmax_slope
from saccade.attention.mechanisms._feature_map import cuts, room
from saccade.shapes import Float, Tensor


def asked(q: Float[Tensor, "b h q d"], means: Float[Tensor, "b g d e"]) -> Float[Tensor, "b h q e"]:
    """softmax(q) @ means, with the means of the key head that a group of queries shares."""
    b, g = means.shape[:2]
    rows = rearrange(q, "b (g group) q d -> (b g) (group q) d", g=g)
    flat = means.flatten(0, 1)
    out = rows.softmax(-1) @ flat if torch.compiler.is_exporting() else _Asked.apply(rows.contiguous(), flat)
    return rearrange(out, "(b g) (group q) e -> b (g group) q e", b=b, g=g, group=q.shape[1] // g)


class _Asked(torch.autograd.Function):
    """The softmax is made in a workspace, forward and again backward."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, means: Tensor) -> Tensor:
        work, out = room(q), q.new_empty(*q.shape[:2], means.shape[2])
        for cut in cuts(*q.shape[:2]):
            rho = torch.softmax(cut.of(q), -1, out=work.take("rho", *cut.of(q).shape))
            torch.bmm(rho, means[cut.heads], out=cut.of(out))
        ctx.save_for_backward(q, means)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, means = ctx.saved_tensors
        work, grad = room(q), grad.contiguous()
        to_q, to_means = torch.empty_like(q), torch.zeros_like(means)
        for cut in cuts(*q.shape[:2]):
            rho = torch.softmax(cut.of(q), -1, out=work.take("rho", *cut.of(q).shape))
            to_means[cut.heads].baddbmm_(rho.mT, cut.of(grad))
            to_rho = torch.bmm(cut.of(grad), means[cut.heads].mT, out=cut.of(to_q))
            softmax_slope(rho, to_rho)
        return to_q, to_means

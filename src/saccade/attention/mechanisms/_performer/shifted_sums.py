"""Sums over keys of positive features of any size, all divided by the largest feature of all.

The largest one is found on the way: as in an online softmax, the sums so far are rescaled where a larger one comes. It
is a constant for gradients, and no approximation is made by that: it stands in every weight and in their sum.

Cost: O(n f (d + e)) time; memory O(n e) and workspaces of a few MB.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

from saccade.attention.mechanisms._feature_map import Cut, Sums, asked, cuts, room
from saccade.attention.mechanisms._performer.positive_features import PositiveFeatures, least, lowest
from saccade.shapes import Bool, Float


class ShiftedSums(NamedTuple):
    """What queries need to know of keys and values, of each head.

    Attributes:
        s: the paper's sum of phi(k) v^T, over 2^shift.
        z: the paper's sum of phi(k), over 2^shift.
        shift: the largest exponent of any feature, in units of log 2; very low where there was no key.
    """

    s: Float[Tensor, "b g f e"]
    z: Float[Tensor, "b g f 1"]
    shift: Float[Tensor, "b g 1 1"]


def no_sums(batch: int, heads: int, features: int, value_dim: int, like: Tensor) -> ShiftedSums:
    """The sums over nothing, of dtype and device of another tensor."""
    s, z = (like.new_zeros(batch, heads, features, dim) for dim in (value_dim, 1))
    return ShiftedSums(s, z, like.new_full((batch, heads, 1, 1), lowest(like.dtype)))


def shifted_sums(
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    key_mask: Bool[Tensor, "b k"] | None,
    directions: Float[Tensor, "g f d"],
) -> ShiftedSums:
    """The sums over the real keys of each head; hidden ones must be zero."""
    (b, g), phi = k.shape[:2], PositiveFeatures(directions, k.shape[1], len(k), of_keys=True)
    hidden = None if key_mask is None else ~key_mask.repeat_interleave(g, 0)[..., None]
    found = _ShiftedSums.apply(*(x.flatten(0, 1).contiguous() for x in (k, v)), hidden, phi)
    return ShiftedSums(*(each.unflatten(0, (b, g)) for each in found))


def asked_sums(
    q: Float[Tensor, "b h q d"], sums: ShiftedSums, directions: Float[Tensor, "g f d"]
) -> Float[Tensor, "b h q e"]:
    """What each query gets from the sums of its key head."""
    b, g = sums.s.shape[:2]
    rows, flat = rearrange(q, "b (g r) q d -> (b g) (r q) d", g=g), Sums(sums.s.flatten(0, 1), sums.z.flatten(0, 1))
    out = asked(rows, flat, PositiveFeatures(directions, g, b), least(q.dtype))
    return rearrange(out, "(b g) (r q) e -> b (g r) q e", b=b, g=g, r=q.shape[1] // g)


def joined(one: ShiftedSums, other: ShiftedSums) -> ShiftedSums:
    """The sums over the keys of both."""
    shift = torch.maximum(one.shift, other.shift)
    ours, theirs = (each.sub(shift).exp2() for each in (one.shift, other.shift))
    return ShiftedSums(one.s * ours + other.s * theirs, one.z * ours + other.z * theirs, shift)


class _ShiftedSums(torch.autograd.Function):
    """Keys and values into sums."""

    @staticmethod
    def forward(
        ctx: Any, k: Tensor, v: Tensor, hidden: Tensor | None, phi: PositiveFeatures
    ) -> tuple[Tensor, Tensor, Tensor]:
        work, size = room(k), phi.size(k.shape[2])
        s, z = k.new_zeros(len(k), size, v.shape[2]), k.new_zeros(len(k), size, 1)
        shift = k.new_full((len(k), 1, 1), lowest(k.dtype))
        offset = phi.offset(k)
        offset = offset if hidden is None else offset.masked_fill(hidden, 2 * lowest(k.dtype))
        for cut in _cuts(k):
            phi_k = phi.exponents(work, "k", cut.of(k), cut, cut.of(offset))
            s_c, z_c, shift_c = (each[cut.heads] for each in (s, z, shift))
            highest = phi_k.amax((1, 2), keepdim=True).maximum(shift_c)
            fading = shift_c.sub(highest).exp2_()
            phi_k.sub_(highest).exp2_()
            s_c.mul_(fading).baddbmm_(phi_k.mT, cut.of(v))
            z_c.mul_(fading).add_(phi_k.sum(1)[..., None])
            shift_c.copy_(highest)
        ctx.save_for_backward(k, v, offset, shift)
        ctx.mark_non_differentiable(shift)
        ctx.phi = phi
        return s, z, shift

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_s: Tensor, grad_z: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        k, v, offset, shift = ctx.saved_tensors
        work, grad_k, grad_v = room(k), torch.empty_like(k), torch.empty_like(v)
        for cut in _cuts(k):
            phi_k = ctx.phi.exponents(work, "k", cut.of(k), cut, cut.of(offset)).sub_(shift[cut.heads]).exp2_()
            torch.bmm(phi_k, grad_s[cut.heads], out=cut.of(grad_v))
            back = torch.bmm(cut.of(v), grad_s[cut.heads].mT, out=work.take("back", *phi_k.shape))
            cut.of(grad_k).copy_(ctx.phi.slope(cut.of(k), phi_k, back.add_(grad_z[cut.heads].mT), cut))
        return grad_k, grad_v, None, None


def _cuts(k: Float[Tensor, "m k d"]) -> Iterable[Cut]:
    """None where there is nothing to find a largest one of."""
    return cuts(*k.shape[:2]) if k.shape[1] else ()

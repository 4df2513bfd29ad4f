"""The causal form of attention by features: sums that grow with the position.

In chunks: within a chunk pair by pair, before it through the sums S and z of `_feature_map.py`, which are carried from
chunk to chunk.

Cost: O(n f (e + chunk)) time; memory O(n e) and workspaces of a few MB. `f` features.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from saccade.attention.backends._tiles import Workspace
from saccade.attention.mechanisms._exported_sums import exported_causal
from saccade.attention.mechanisms._feature_map import (
    FeatureMap,
    Sums,
    chunked,
    cuts,
    divisor,
    exported_features,
    keys_of,
    masked,
    missing_rows,
    room,
    running,
    total_gradient,
)
from saccade.shapes import Float, Tensor


def causal_by_features(
    q: Float[Tensor, "m n d"],
    k: Float[Tensor, "m n d"],
    v: Float[Tensor, "m n e"],
    real: Float[Tensor, "m n 1"] | None,
    earlier: Sums | None,
    maps: tuple[FeatureMap, FeatureMap],
    least: float = 0.0,
) -> Float[Tensor, "m n e"]:
    """What each query gets from the keys up to its own position, and from the sums over earlier ones if there are.

    `maps` are those of queries and of keys; sums of weights divide as `divisor` says.
    """
    if torch.compiler.is_exporting():
        return exported_causal(
            exported_features("q", q, None, maps[0]), exported_features("k", k, real, maps[1]), v, earlier, least
        )
    n = q.shape[1]
    if not n:
        return v
    if fill := missing_rows(n):
        q, k, v = (pad(x, (0, 0, 0, fill)) for x in (q, k, v))
        real = None if real is None else pad(real, (0, 0, 0, fill))
    if earlier is None:
        earlier = Sums(*(k.new_zeros(len(k), maps[1].size(k.shape[2]), dim) for dim in (v.shape[2], 1)))
    flat = (x.contiguous() for x in (q, k, v))
    return _Causal.apply(*flat, real, *earlier, maps, least)[:, :n]


class _Causal(torch.autograd.Function):
    """Sums carried from cut to cut; within a cut chunks, each with the sums before it and its own pairs."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None, s: Tensor, z: Tensor, maps: Any, least: float
    ) -> Tensor:
        work, out, total = room(q), torch.empty_like(v), v.new_empty(*v.shape[:2], 1)
        carried, begun = (s.clone(), z.clone()), []
        for cut in cuts(*q.shape[:2]):
            begun += [each[cut.heads].clone() for each in carried]
            phi_q, phi_k = maps[0].features(work, "q", cut.of(q), cut), keys_of(work, k, real, cut, maps[1])
            phi_q, phi_k, v_c, out_c, total_c = chunked(phi_q, phi_k, cut.of(v), cut.of(out), cut.of(total))
            s_c, z_c = _sums_before(work, phi_k, v_c, [each[cut.heads] for each in carried])
            pairs = torch.bmm(phi_q, phi_k.mT, out=work.take("pairs", *phi_q.shape[:2], phi_k.shape[1])).tril_()
            torch.sum(pairs, -1, keepdim=True, out=total_c)
            total_c.baddbmm_(phi_q, z_c)
            torch.bmm(pairs, v_c, out=out_c).baddbmm_(phi_q, s_c).div_(divisor(total_c, least))
        ctx.save_for_backward(q, k, v, real, total, *begun)
        ctx.maps, ctx.least = maps, least
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, real, total, *begun = ctx.saved_tensors
        work, maps, grad = room(q), ctx.maps, grad.contiguous()
        grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
        features = maps[0].size(q.shape[2])
        back = v.new_zeros(len(v), features, v.shape[2]), v.new_zeros(len(v), features, 1)
        for number, cut in reversed(list(enumerate(cuts(*q.shape[:2])))):
            phi_q, phi_k = maps[0].features(work, "q", cut.of(q), cut), keys_of(work, k, real, cut, maps[1])
            to_sum = torch.div(
                cut.of(grad), divisor(cut.of(total), ctx.least), out=work.take("to_sum", *cut.of(grad).shape)
            )
            phi_q, phi_k, v_c, grad_v_c, to_sum, total_c = chunked(
                phi_q, phi_k, cut.of(v), cut.of(grad_v), to_sum, cut.of(total)
            )
            s_c, z_c = _sums_before(work, phi_k, v_c, [each.clone() for each in begun[2 * number : 2 * number + 2]])
            square = *phi_q.shape[:2], phi_q.shape[1]
            pairs = torch.bmm(phi_q, phi_k.mT, out=work.take("pairs", *square)).tril_()
            to_pairs = torch.bmm(to_sum, v_c.mT, out=work.take("to_pairs", *square))
            to_q = torch.bmm(to_sum, s_c.mT, out=work.take("to_q", *phi_q.shape))
            to_total = total_gradient(work, total_c, ctx.least, (pairs, to_pairs), (phi_q, to_q))
            s_b, z_b = _sums_behind(work, phi_q, to_sum, to_total, [each[cut.heads] for each in back])
            torch.bmm(pairs.mT, to_sum, out=grad_v_c).baddbmm_(phi_k, s_b)
            to_pairs.add_(to_total).tril_()
            to_q.baddbmm_(to_pairs, phi_k).baddbmm_(to_total, z_c.mT)
            to_k = torch.bmm(to_pairs.mT, phi_q, out=work.take("to_k", *phi_k.shape))
            to_k.baddbmm_(v_c, s_b.mT).add_(z_b.mT)
            rows = *cut.of(q).shape[:2], features
            cut.of(grad_q).copy_(maps[0].slope(cut.of(q), phi_q.view(rows), to_q.view(rows), cut))
            to_k = masked(to_k.view(rows), real, cut)
            cut.of(grad_k).copy_(maps[1].slope(cut.of(k), phi_k.view(rows), to_k, cut))
        return grad_q, grad_k, grad_v, None, *back, None, None


def _sums_before(
    work: Workspace, phi_k: Float[Tensor, "c n f"], v: Float[Tensor, "c n e"], carried: list[Tensor]
) -> list[Tensor]:
    """For each chunk the sums over all before it. `carried` goes on from before the first to behind the last."""
    s = torch.bmm(phi_k.mT, v, out=work.take("s", len(v), phi_k.shape[2], v.shape[2]))
    own, order = (s, phi_k.sum(1)[..., None]), range(len(v) // len(carried[0]))
    return [running(work, *each, order) for each in zip("sz", own, carried, strict=True)]


def _sums_behind(
    work: Workspace,
    phi_q: Float[Tensor, "c n f"],
    to_sum: Float[Tensor, "c n e"],
    to_total: Float[Tensor, "c n 1"],
    carried: list[Tensor],
) -> list[Tensor]:
    """For each chunk the gradients of the sums from all chunks behind it; `carried` goes on to before the first."""
    s = torch.bmm(phi_q.mT, to_sum, out=work.take("s", len(phi_q), phi_q.shape[2], to_sum.shape[2]))
    z = torch.bmm(phi_q.mT, to_total, out=work.take("z", len(phi_q), phi_q.shape[2], 1))
    order = range(len(phi_q) // len(carried[0]) - 1, -1, -1)
    return [running(work, *each, order) for each in zip(("s behind", "z behind"), (s, z), carried, strict=True)]

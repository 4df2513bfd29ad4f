"""Causal attention by features in which each weight has a scale: 2^(key_j - row_i) for key j and query i.

With scales that keep every number in range (a running maximum, as in Performer) or that let what is past fade (a gate,
as in gated random feature attention). Computed in chunks like `_causal_features.py`: the sums before a chunk are scaled
to the reference of the row before it, so that no number grows with the position and none knows of a later token.

Cost: that of `_causal_features.py`, and a scale for each pair within a chunk.
"""

import math
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from saccade.attention.backends._tiles import Workspace
from saccade.attention.mechanisms._exported_sums import exported_scaled
from saccade.attention.mechanisms._feature_map import (
    CHUNK,
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

LN2 = math.log(2)


class Scales(NamedTuple):
    """The exponents of 2 that scale weights; best in float64, as only differences of near ones count.

    Attributes:
        key: of each key, at most the `row` of any query from its position on, or about.
        row: the reference of each query: a larger one makes all its weights smaller.
        begin: the reference of the sums over earlier keys.
    """

    key: Float[Tensor, "m n 1"]
    row: Float[Tensor, "m n 1"]
    begin: Float[Tensor, "m 1 1"]


def causal_scaled(
    q: Float[Tensor, "m n d"],
    k: Float[Tensor, "m n d"],
    v: Float[Tensor, "m n e"],
    real: Float[Tensor, "m n 1"] | None,
    earlier: Sums,
    maps: tuple[FeatureMap, FeatureMap],
    scales: Scales,
    least: float = 0.0,
) -> Float[Tensor, "m n e"]:
    """What each query gets from the keys up to its own position and from the earlier sums.

    `maps` are those of queries and of keys; sums of weights divide as `divisor` says. Scales get gradients.
    """
    if torch.compiler.is_exporting():
        features = exported_features("q", q, None, maps[0]), exported_features("k", k, real, maps[1])
        return exported_scaled(*features, v, earlier, scales, least)
    n = q.shape[1]
    if not n:
        return v
    if fill := missing_rows(n):
        real = k.new_ones(*k.shape[:2], 1) if real is None else real
        q, k, v, real = (pad(x, (0, 0, 0, fill)) for x in (q, k, v, real))
        key, row = (torch.cat([x, scales.row[:, -1:].expand(-1, fill, -1)], 1) for x in scales[:2])
        scales = Scales(key, row, scales.begin)
    flat = (x.contiguous() for x in (q, k, v))
    return _Scaled.apply(*flat, real, *earlier, *_within_chunks(scales, q.dtype), maps, least)[:, :n]


def _within_chunks(scales: Scales, dtype: torch.dtype) -> list[Tensor]:
    """Keys' and rows' exponents relative to the row before their chunk."""
    chunk = min(CHUNK, scales.row.shape[1])
    ends = scales.row[:, chunk - 1 :: chunk]
    before = torch.cat([scales.begin, ends[:, :-1]], 1).repeat_interleave(chunk, 1)
    return [(each - before).to(dtype) for each in scales[:2]]


class _Factors(NamedTuple):
    """The scales of some chunks as factors.

    Attributes:
        pairs: of each key for each query; above the diagonal anything.
        before: of the sums before the chunk for each query.
        own: of each key in the sums behind the chunk.
        decay: of the sums before the chunk in those behind it.
    """

    pairs: Float[Tensor, "c n n"]
    before: Float[Tensor, "c n 1"]
    own: Float[Tensor, "c n 1"]
    decay: Float[Tensor, "c 1 1"]


def _factors(work: Workspace, key: Float[Tensor, "c n 1"], row: Float[Tensor, "c n 1"]) -> _Factors:
    pairs = torch.sub(key.mT, row, out=work.take("scale", len(key), key.shape[1], key.shape[1])).exp2_()
    end, before = row[:, -1:], (-row).clamp_(max=0).exp2_()  # a row may fall where nothing is before it to be scaled
    return _Factors(pairs, before, (key - end).exp2_(), before[:, -1:])


class _Scaled(torch.autograd.Function):
    """Sums carried from cut to cut; within a cut chunks, each with the sums before it and its own pairs."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        real: Tensor | None,
        s: Tensor,
        z: Tensor,
        key: Tensor,
        row: Tensor,
        maps: Any,
        least: float,
    ) -> Tensor:
        work, out, total = room(q), torch.empty_like(v), v.new_empty(*v.shape[:2], 1)
        carried, begun = (s.clone(), z.clone()), []
        for cut in cuts(*q.shape[:2]):
            begun += [each[cut.heads].clone() for each in carried]
            phi_q, phi_k = maps[0].features(work, "q", cut.of(q), cut), keys_of(work, k, real, cut, maps[1])
            phi_q, phi_k, v_c, out_c, total_c = chunked(phi_q, phi_k, cut.of(v), cut.of(out), cut.of(total))
            by = _factors(work, *chunked(cut.of(key), cut.of(row)))
            s_c, z_c = _sums_before(work, phi_k, v_c, by, [each[cut.heads] for each in carried])
            pairs = torch.bmm(phi_q, phi_k.mT, out=work.take("pairs", *by.pairs.shape)).mul_(by.pairs).tril_()
            torch.sum(pairs, -1, keepdim=True, out=total_c).addcmul_(_product(work, phi_q, z_c.mT, -1), by.before)
            from_before = torch.bmm(phi_q, s_c, out=work.take("from_before", *v_c.shape)).mul_(by.before)
            torch.bmm(pairs, v_c, out=out_c).add_(from_before).div_(divisor(total_c, least))
        ctx.save_for_backward(q, k, v, real, key, row, total, *begun)
        ctx.maps, ctx.least = maps, least
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, real, key, row, total, *begun = ctx.saved_tensors
        work, maps, grad = room(q), ctx.maps, grad.contiguous()
        grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
        wanted = zip((key, row), ctx.needs_input_grad[6:8], strict=True)
        grad_key, grad_row = (torch.empty_like(scale) if is_wanted else None for scale, is_wanted in wanted)
        back = [v.new_zeros(len(v), maps[0].size(q.shape[2]), dim) for dim in (v.shape[2], 1)]
        for number, cut in reversed(list(enumerate(cuts(*q.shape[:2])))):
            phi_q, phi_k = maps[0].features(work, "q", cut.of(q), cut), keys_of(work, k, real, cut, maps[1])
            to_sum = torch.div(
                cut.of(grad), divisor(cut.of(total), ctx.least), out=work.take("to_sum", *cut.of(grad).shape)
            )
            rows = *cut.of(q).shape[:2], phi_q.shape[2]
            phi_q, phi_k, v_c, grad_v_c, to_sum, total_c = chunked(
                phi_q, phi_k, cut.of(v), cut.of(grad_v), to_sum, cut.of(total)
            )
            by = _factors(work, *chunked(cut.of(key), cut.of(row)))
            s_c, z_c = _sums_before(work, phi_k, v_c, by, [each.clone() for each in begun[2 * number : 2 * number + 2]])
            pairs = torch.bmm(phi_q, phi_k.mT, out=work.take("pairs", *by.pairs.shape)).mul_(by.pairs).tril_()
            to_pairs = torch.bmm(to_sum, v_c.mT, out=work.take("to_pairs", *by.pairs.shape))
            to_before = torch.mul(to_sum, by.before, out=work.take("to_before", *to_sum.shape))
            to_q = torch.bmm(to_before, s_c.mT, out=work.take("to_q", *phi_q.shape))
            to_total = total_gradient(work, total_c, ctx.least, (pairs, to_pairs), (phi_q, to_q))
            to_fading = to_total * by.before
            s_b, z_b = _sums_behind(work, phi_q, to_before, to_fading, by, [x[cut.heads] for x in back])
            to_v = torch.bmm(phi_k, s_b, out=work.take("to_v", *v_c.shape)).mul_(by.own)
            torch.bmm(pairs.mT, to_sum, out=grad_v_c).add_(to_v)
            to_pairs.add_(to_total).mul_(by.pairs).tril_()
            to_q.baddbmm_(to_pairs, phi_k).addcmul_(to_fading, z_c.mT)
            to_k = torch.bmm(to_pairs.mT, phi_q, out=work.take("to_k", *phi_k.shape))
            own_v = torch.mul(v_c, by.own, out=work.take("own_v", *v_c.shape))
            to_k.baddbmm_(own_v, s_b.mT).addcmul_(by.own, z_b.mT)
            if grad_key is not None:
                chunked(cut.of(grad_key))[0].copy_(_product(work, phi_k, to_k, -1)).mul_(LN2)
            if grad_row is not None:
                own = (to_v * v_c).sum((1, 2)) + (_product(work, phi_k, z_b.mT, -1) * by.own).sum((1, 2))
                carried = ((s_c * s_b).sum((1, 2)) + (z_c * z_b).sum((1, 2))) * by.decay[:, 0, 0]
                to_row = chunked(cut.of(grad_row))[0].copy_(_product(work, phi_q, to_q, -1)).mul_(-LN2)
                to_row[:, -1, 0].sub_(own.add_(carried), alpha=LN2)
            cut.of(grad_q).copy_(maps[0].slope(cut.of(q), phi_q.view(rows), to_q.view(rows), cut))
            to_k = masked(to_k.view(rows), real, cut)
            cut.of(grad_k).copy_(maps[1].slope(cut.of(k), phi_k.view(rows), to_k, cut))
        return grad_q, grad_k, grad_v, None, *back, grad_key, grad_row, None, None


def _product(work: Workspace, phi: Float[Tensor, "c n f"], other: Tensor, axis: int) -> Tensor:
    """The sum of products over an axis: with one number for each row or feature, `bmm` takes ten times as long."""
    return torch.mul(phi, other, out=work.take("product", *phi.shape)).sum(axis, keepdim=True)


def _sums_before(
    work: Workspace, phi_k: Float[Tensor, "c n f"], v: Float[Tensor, "c n e"], by: _Factors, carried: list[Tensor]
) -> list[Tensor]:
    """For each chunk the sums over all before it. `carried` goes on from before the first to behind the last."""
    own_v = torch.mul(v, by.own, out=work.take("own_v", *v.shape))
    s = torch.bmm(phi_k.mT, own_v, out=work.take("s", len(v), phi_k.shape[2], v.shape[2]))
    z = _product(work, phi_k, by.own, 1).mT
    order = range(len(v) // len(carried[0]))
    return [running(work, *each, order, by.decay) for each in zip("sz", (s, z), carried, strict=True)]


def _sums_behind(
    work: Workspace,
    phi_q: Float[Tensor, "c n f"],
    to_before: Float[Tensor, "c n e"],
    to_total: Float[Tensor, "c n 1"],
    by: _Factors,
    carried: list[Tensor],
) -> list[Tensor]:
    """For each chunk the gradients of the sums behind it; `carried` goes on to before the first."""
    s = torch.bmm(phi_q.mT, to_before, out=work.take("s", len(phi_q), phi_q.shape[2], to_before.shape[2]))
    z = _product(work, phi_q, to_total, 1).mT
    order, names = range(len(phi_q) // len(carried[0]) - 1, -1, -1), ("s behind", "z behind")
    return [running(work, *each, order, by.decay) for each in zip(names, (s, z), carried, strict=True)]

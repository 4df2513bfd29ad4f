"""Attention among rows that a sort has brought together, forward and backward, without a scatter of rows.

Rows are sorted in one or several rounds, and each looks at rows near its place: at its own tile and at some tiles
before it, or at a part of them. Rounds are combined by their log-sum-exp, so a key met twice counts twice. What is
needed of the sorted rows is gathered tile by tile into a workspace, keys are views of the gathered rows that overlap,
and results are brought back by `embedding_bag`, which sums the places of a row. Weights are never stored.

Source: sorting and chunks, Reformer (Kitaev et al. 2020).

Cost: O(r n w d) time for r rounds and windows of w places; memory O(n d), and r rows a token for a few heads at a time.
"""

import math
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from saccade.attention.mechanisms._lsh.sorted_tiles import HIDDEN, Group, Room, Sorted, Window, groups
from saccade.shapes import Bool, Float, Int, Tensor


def sort_rows(bucket: Int[Tensor, "m r n"], buckets: int) -> tuple[Sorted, Int[Tensor, "m r n"]]:
    """Rows sorted by (bucket, position), and the bucket at each place.

    Args:
        bucket: the bucket of each row, at least 0; what is to stand behind everything has the last one.
        buckets: how many there are.
    """
    runs, n = bucket.shape[0] * bucket.shape[1], bucket.shape[2]
    # One flat sort of small whole numbers: torch then takes its radix sort.
    first = torch.arange(runs, device=bucket.device).view(*bucket.shape[:2], 1)
    keys = (bucket + first * buckets).flatten()
    keys, order = (keys.int() if runs * buckets < 2**31 else keys).sort(stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    begin = first * n
    order, place = ((flat.view(bucket.shape) - begin).int() for flat in (order, place))
    return Sorted(order, place), keys.view(bucket.shape) - first * buckets


def starts(at_place: Int[Tensor, "m r n"]) -> Int[Tensor, "m r n"]:
    """The first place of the bucket at each place."""
    places = torch.arange(at_place.shape[2], device=at_place.device).expand(at_place.shape)
    begins = torch.ones_like(at_place, dtype=torch.bool)
    begins[..., 1:] = at_place[..., 1:] != at_place[..., :-1]
    return places.masked_fill(~begins, 0).cummax(-1).values


def first_seen(at_place: Int[Tensor, "m r n"], chunk: int) -> Int[Tensor, "m r n"]:
    """The start of the chunk before that of each place, where each bucket is cut into chunks from its own start."""
    first = starts(at_place)
    begin = torch.arange(at_place.shape[2], device=at_place.device) - first
    return (first + (begin // chunk - 1).clamp_(min=0) * chunk).int()


def bucket_in_chunks(at_place: Int[Tensor, "m r n"], chunk: int) -> tuple[Tensor, Tensor]:
    """Where the bucket of each place begins and ends, within the chunk of the place and the one before."""
    n = at_place.shape[2]
    own = torch.arange(n, device=at_place.device) // chunk
    end = n - starts(at_place.flip(2)).flip(2)
    low, high = starts(at_place).maximum((own - 1) * chunk), end.minimum((own + 1) * chunk)
    return low.int(), high.int()


def attend_sorted(
    q: Float[Tensor, "m n d"],
    v: Float[Tensor, "m2 n e"],
    found: Sorted,
    real: tuple[int, ...],
    window: Window,
) -> Float[Tensor, "m n e"]:
    """What each row takes from the rows near its places. Keys are the queries, brought to unit length.

    Args:
        q: queries and keys.
        v: values; each of its heads is shared by as many following ones of `q`.
        found: the sorted rows.
        real: for each head how many of its places hold real rows: those behind see nothing and are not seen.
        window: what is seen.

    Returns:
        Weighted means. A real row that sees nothing gets its own value; a hidden one zeros.
    """
    return AmongSorted.apply(q.contiguous(), v.contiguous(), *found, real, window)


def _inverse_norms(x: Float[Tensor, "t d"]) -> Float[Tensor, "t 1"]:
    """What brings each row to unit length; a row of zeros stays as it is."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.reciprocal().masked_fill_(norm == 0, 0)


def _shared(group: Group, v: Float[Tensor, "m2 n e"], heads: int) -> tuple[Int[Tensor, " h"], Float[Tensor, "t e"]]:
    """For each head of a group the head of its values, and these values."""
    numbers = torch.arange(group.heads.start, group.heads.stop, device=v.device) // (heads // len(v))
    chosen = v[group.heads] if heads == len(v) else v.index_select(0, numbers)
    return numbers, chosen.flatten(0, 1)


def _forward(group: Group, q: Float[Tensor, "t d"], v: Float[Tensor, "t e"]) -> tuple[Tensor, Tensor]:
    """The means of each row over all rounds, and their log-sum-exp (base 2)."""
    room, inverse = group.room, _inverse_norms(q)
    size = group.pad + group.places
    out, top, total = (
        room.large.take(name, size, dim) for name, dim in (("out", v.shape[1]), ("top", 1), ("total", 1))
    )
    for buffer, nothing in ((out, 0), (top, HIDDEN), (total, 0)):
        buffer[: group.pad] = nothing
    for piece in group.pieces():
        rows = piece.gather("q", q)
        keys = torch.mul(rows, piece.gather("inverse", inverse), out=room.small.take("k", *rows.shape))
        scores = piece.scores(piece.tiles(rows), piece.windows(keys))
        highest = torch.amax(scores, -1, keepdim=True, out=piece.own(top))
        scores.sub_(highest.clamp_(min=HIDDEN / 2)).exp2_()
        torch.sum(scores, -1, keepdim=True, out=piece.own(total))
        torch.bmm(scores, piece.windows(piece.gather("v", v)), out=piece.own(out))
    return _combined(group.place, out, top.flatten(), total.flatten())


def _combined(
    place: Int[Tensor, "t r"], out: Float[Tensor, "p e"], top: Float[Tensor, " p"], total: Float[Tensor, " p"]
) -> tuple[Float[Tensor, "t e"], Float[Tensor, "t 1"]]:
    """The rounds of each row in one, by their log-sum-exp."""
    top, total = (each.index_select(0, place.flatten()).view(place.shape) for each in (top, total))
    highest = top.amax(-1, keepdim=True)
    factor = top.sub_(highest).exp2_()
    whole = total.mul_(factor).sum(-1, keepdim=True)
    factor.div_(whole.clamp(min=torch.finfo(whole.dtype).tiny))
    mean = embedding_bag(place, out, per_sample_weights=factor, mode="sum")
    return mean, whole.log2_().add_(highest)


def _backward(
    group: Group,
    q: Float[Tensor, "t d"],
    v: Float[Tensor, "t e"],
    lse: Float[Tensor, "t 1"],
    grad: Float[Tensor, "t e"],
    inner: Float[Tensor, "t 1"],
) -> tuple[Tensor, Tensor]:
    """The gradients of queries and values; `inner` is the product of output and gradient."""
    room, inverse, scale = group.room, _inverse_norms(q), group.window.scale
    dims = ("grad q", q.shape[1]), ("grad k", q.shape[1]), ("grad v", v.shape[1])
    to_q, to_k, to_v = (room.large.take(name, group.pad + group.places, dim) for name, dim in dims)
    for buffer in (to_q, to_k, to_v):
        buffer[: group.pad] = 0
    lse_at = _of_real(group, lse)
    for piece in group.pieces():
        rows = piece.gather("q", q)
        keys = torch.mul(rows, piece.gather("inverse", inverse), out=room.small.take("k", *rows.shape))
        queries, keys = piece.tiles(rows), piece.windows(keys)
        weights = piece.scores(queries, keys).sub_(piece.own(lse_at)).exp2_()
        given = piece.tiles(piece.gather("grad", grad, before=False))
        values = piece.windows(piece.gather("v", v))
        to_scores = torch.bmm(given, values.mT, out=room.small.take("grad scores", *weights.shape))
        to_scores.sub_(piece.tiles(piece.gather("inner", inner, before=False))).mul_(weights)
        piece.add_to_keys(to_v, weights, given, 1.0)
        piece.add_to_keys(to_k, to_scores, queries, scale)
        target = piece.own(to_q)
        torch.baddbmm(target, to_scores, keys, beta=0, alpha=scale, out=target)
    to_q, to_k, to_v = (embedding_bag(group.place, each, mode="sum") for each in (to_q, to_k, to_v))
    keys = q * inverse
    along = (keys * to_k).sum(-1, keepdim=True)
    return to_q.add_(to_k.sub_(keys.mul_(along)).mul_(inverse)), to_v


def _of_real(group: Group, lse: Float[Tensor, "t 1"]) -> Float[Tensor, "p 1"]:
    """The log-sum-exp at each place; inf where no real row stands, and 0 where it is -inf: both make weights zero."""
    at = torch.index_select(lse, 0, group.index, out=group.room.large.take("lse", group.pad + group.places, 1))
    at.masked_fill_(at == -math.inf, 0)
    at[group.pad :].view(group.runs, -1)[:, group.real :] = math.inf
    return at


def _alone(group: Group, lse: Float[Tensor, "t 1"]) -> Bool[Tensor, "t 1"] | None:
    """Real rows that see nothing in any round. On a CPU `None` if there are none: looking costs little there."""
    alone = (lse == -math.inf) & (group.place[:, :1] > 0)
    return alone if alone.device.type != "cpu" or bool(alone.any()) else None


class AmongSorted(torch.autograd.Function):
    """Attention among sorted rows. Kept are the inputs, the output, the sorted rows and one number for each row."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        v: Tensor,
        order: Tensor,
        place: Tensor,
        low: Tensor | None,
        high: Tensor | None,
        real: tuple[int, ...],
        window: Window,
    ) -> Tensor:
        found = Sorted(order, place, low, high)
        out, lse = q.new_zeros(*q.shape[:2], v.shape[2]), q.new_zeros(*q.shape[:2], 1)
        for group in groups(Room.of(q), found, real, window):
            values = _shared(group, v, len(q))[1]
            mean, lse_of = _forward(group, q[group.heads].flatten(0, 1), values)
            alone = _alone(group, lse_of)
            mean = mean if alone is None else torch.where(alone, values, mean)
            out[group.heads] = mean.view_as(out[group.heads])
            lse[group.heads] = lse_of.view_as(lse[group.heads])
        ctx.save_for_backward(q, v, out, lse, *found)
        ctx.real, ctx.window = real, window
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, v, out, lse, *found = ctx.saved_tensors
        grad_q, grad_v = torch.zeros_like(q), torch.zeros_like(v)
        for group in groups(Room.of(q), Sorted(*found), ctx.real, ctx.window):
            numbers, values = _shared(group, v, len(q))
            given, lse_of = (x[group.heads].flatten(0, 1) for x in (grad, lse))
            inner = (given * out[group.heads].flatten(0, 1)).sum(-1, keepdim=True)
            to_q, to_v = _backward(group, q[group.heads].flatten(0, 1), values, lse_of, given, inner)
            alone = _alone(group, lse_of)
            to_v = to_v if alone is None else to_v.add_(given.masked_fill(~alone, 0))
            grad_q[group.heads] = to_q.view_as(grad_q[group.heads])
            grad_v.index_add_(0, numbers, to_v.view(-1, *grad_v.shape[1:]))
        return grad_q, grad_v, *(None,) * 6

"""Attention among rows that a sort has brought together, forward and backward, without a scatter of rows.

Rows are sorted in one or several rounds, and each looks at rows near its place: at its own tile and at some tiles
before it, or at a part of them. Rounds are combined by their log-sum-exp, so a key met twice counts twice. What is
needed of the sorted rows is gathered tile by tile into a workspace, keys are views of the gathered rows that overlap,
and results are brought back by `embedding_bag`, which sums the places of a row. Weights are never stored.

Source: sorting and chunks, Reformer (Kitaev et al. 2020).

Cost: O(r n w d) time for r rounds and windows of w places; memory O(n d), and r rows a token for a few heads at a time.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from saccade.attention.backends._tiles import LOG2E, Workspace, workspace
from saccade.shapes import Float, Int, Tensor

ROWS = 16384
"""Sorted rows at a time, over the rounds of the heads at hand; one head at least. 64 times as many on a GPU."""

SCORES = 2**19
"""Scores at a time: they stay in cache."""

HIDDEN = -(2.0**100)
"""Added to the score of a pair that is not allowed: its weight is exactly 0, and to add is much faster than to fill."""


class Sorted(NamedTuple):
    """Rows in the order of their buckets, for each head of each example (`m`) and each round (`r`).

    Attributes:
        order: the row at each place.
        place: the place of each row.
        low: the first place that the row at each place may see; None where it may see its whole window.
        high: one past the last such place; None where the window itself ends there.
    """

    order: Int[Tensor, "m r n"]
    place: Int[Tensor, "m r n"]
    low: Int[Tensor, "m r n"] | None = None
    high: Int[Tensor, "m r n"] | None = None


@dataclass(frozen=True)
class Window:
    """What of the sorted rows a row looks at. Never at itself, but where it sees nothing else in any round.

    Attributes:
        tile: places in a tile.
        back: tiles before its own that it sees as well.
        causal: whether it sees earlier places only.
        unique: whether a key that is met in several rounds counts once.
        scale: factor on the scores.
    """

    tile: int
    back: int
    causal: bool
    unique: bool
    scale: float


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
    return _AmongSorted.apply(q.contiguous(), v.contiguous(), *found, real, window)


@dataclass
class _Room:
    """Where a call computes: small buffers that stay with the thread, and large ones of its own."""

    small: Workspace
    large: Workspace
    whole: Workspace

    @classmethod
    def of(cls, like: Tensor) -> "_Room":
        """In the dtype of the rows."""
        small, whole = (workspace(dtype, like.device) for dtype in (like.dtype, torch.int32))
        return cls(small, Workspace(like.dtype, like.device), whole)


@dataclass
class _Group:
    """Some heads with as many real rows each: their rounds, tile by tile, one after the other.

    Before the first tile there is room for `back` more, at least one, in which nothing stands: `pad` places.
    """

    room: _Room
    found: Sorted
    heads: slice
    real: int
    window: Window

    def __post_init__(self) -> None:
        """Sizes: short rows take smaller tiles, and a single tile has none before it."""
        heads, self.rounds, self.n = self.found.order[self.heads].shape
        self.tile = min(self.window.tile, self.real)
        self.tiles = -(-self.real // self.tile)
        self.back = min(self.window.back, self.tiles - 1)
        self.width = (1 + self.back) * self.tile
        self.pad = max(1, self.back) * self.tile
        self.count, self.runs = heads, heads * self.rounds
        self.places = self.runs * self.tiles * self.tile

    def at_places(self, name: str, per_place: Int[Tensor, "m r n"]) -> Int[Tensor, "h r p"]:
        """Whole numbers for each place of these heads, up to the end of the last tile, where any may stand."""
        taken = self.room.whole.take(name, self.pad + self.places)[self.pad :]
        taken = taken.view(self.count, self.rounds, -1)
        taken[..., : self.real].copy_(per_place[self.heads, :, : self.real])
        return taken

    @cached_property
    def index(self) -> Int[Tensor, " p"]:
        """The row at each place, counted through all heads; behind the real ones some real row."""
        rows = self.at_places("index", self.found.order)
        rows[..., : self.real].add_(self.first(rows))
        rows[..., self.real :] = rows[..., :1]
        index = self.room.whole.take("index", self.pad + self.places)
        index[: self.pad] = 0
        return index

    def first(self, like: Int[Tensor, "h r p"]) -> Int[Tensor, "h 1 1"]:
        """The number of each head's first row."""
        return torch.arange(self.count, dtype=like.dtype, device=like.device)[:, None, None] * self.n

    @cached_property
    def place(self) -> Int[Tensor, "t r"]:
        """All places of each row; the very first, where nothing stands, for a hidden one."""
        found = self.found.place[self.heads]
        begin = torch.arange(self.runs, dtype=found.dtype, device=found.device).view(self.count, self.rounds, 1)
        places = found + begin * (self.tiles * self.tile) + self.pad
        return places.masked_fill_(found >= self.real, 0).mT.reshape(-1, self.rounds)

    @cached_property
    def bounds(self) -> list[tuple[Any, Float[Tensor, "c s 1"]]]:
        """What hides keys by their column: a comparison, and for each row the number to compare with."""
        tile = torch.arange(self.tiles, dtype=torch.int32, device=self.room.whole.device) - self.back
        found = []
        for name, compare, bound in (("low", torch.lt, self.found.low), ("high", torch.ge, self.found.high)):
            if bound is not None:
                places = self.at_places(name, bound)
                places[..., self.real :] = 2**30 if name == "low" else 0
                per_tile = places.view(self.runs, self.tiles, self.tile).sub_((tile * self.tile)[:, None])
                found.append((compare, per_tile.view(-1, self.tile, 1).to(self.room.small.dtype)))
        return found

    @cached_property
    def meetings(self) -> tuple[Float[Tensor, "t r"], Float[Tensor, "t r"], Float[Tensor, "t r"]]:
        """Of each row in each round its place, and the middle and half the number of those that it may see."""
        found, tile = self.found, self.window.tile
        place = found.place[self.heads].long()
        low = ((place // tile - self.window.back) * tile).clamp_(min=0)
        high = ((place // tile + 1) * tile).clamp_(max=self.real)
        if found.low is not None:
            low = found.low[self.heads].long().gather(2, place)
        if self.window.causal:
            high = place
        elif found.high is not None:
            high = found.high[self.heads].long().gather(2, place)
        tables = place, (low + high - 1) / 2, (high - low) / 2
        place, middle, half = (x.to(self.room.small.dtype).mT.reshape(-1, self.rounds) for x in tables)
        return place, middle, half

    def pieces(self) -> Iterator["_Piece"]:
        """All tiles in order, some at a time."""
        step = max(1, SCORES // (self.tile * self.width))
        end = self.runs * self.tiles
        for begin in range(0, end, step):
            yield _Piece(self, begin, min(end, begin + step))


@dataclass
class _Piece:
    """Some tiles of a group, counted through all of its rounds."""

    group: _Group
    begin: int
    end: int

    def gather(self, name: str, rows: Float[Tensor, "t d"], before: bool = True) -> Float[Tensor, "p d"]:
        """The rows at these tiles, and at those before the first that its queries see."""
        group = self.group
        begin = group.pad + (self.begin - (group.back if before else 0)) * group.tile
        index = group.index[begin : group.pad + self.end * group.tile]
        return torch.index_select(rows, 0, index, out=group.room.small.take(name, len(index), rows.shape[1]))

    def tiles(self, rows: Float[Tensor, "p d"]) -> Float[Tensor, "c s d"]:
        """The gathered rows of the queries, tile by tile."""
        return rows[-(self.end - self.begin) * self.group.tile :].view(-1, self.group.tile, rows.shape[1])

    def windows(self, rows: Float[Tensor, "p d"]) -> Float[Tensor, "c w d"]:
        """The gathered rows that each tile sees: views that overlap."""
        group, d = self.group, rows.shape[1]
        return rows.as_strided((self.end - self.begin, group.width, d), (group.tile * d, d, 1))

    def own(self, sorted_rows: Float[Tensor, "p d"], before: int = 0) -> Float[Tensor, "c s d"]:
        """These tiles of all sorted rows, or those some tiles before."""
        group = self.group
        begin, end = (group.pad + (edge - before) * group.tile for edge in (self.begin, self.end))
        return sorted_rows[begin:end].view(-1, group.tile, sorted_rows.shape[1])

    def add_to_keys(
        self,
        sorted_rows: Float[Tensor, "p d"],
        weights: Float[Tensor, "c s w"],
        given: Float[Tensor, "c s d"],
        scale: float,
    ) -> None:
        """Hand to each key what the queries give it: each tile its own first, then those before it."""
        tile = self.group.tile
        for before in range(self.group.back + 1):
            column = self.group.back - before
            to_keys = weights[:, :, column * tile : (column + 1) * tile].mT
            target = self.own(sorted_rows, before)
            torch.baddbmm(target, to_keys, given, beta=min(before, 1), alpha=scale, out=target)

    def scores(self, q: Float[Tensor, "c s d"], k: Float[Tensor, "c w d"]) -> Float[Tensor, "c s w"]:
        """Scaled scores in units of log 2, far below all others where a pair is not allowed."""
        group, work = self.group, self.group.room.small
        out = work.take("scores", len(q), group.tile, group.width)
        torch.baddbmm(out, q, k.mT, beta=0, alpha=group.window.scale * LOG2E, out=out)
        if group.window.unique:
            out.sub_(self._rounds_met())
        own = out[:, :, group.back * group.tile :]
        if group.window.causal:
            own.add_(own.new_full(own.shape[1:], HIDDEN).triu_())
        else:
            own.diagonal(dim1=1, dim2=2).fill_(HIDDEN)
        self._hide_ends(out)
        columns = torch.arange(group.width, dtype=out.dtype, device=out.device)
        for compare, bound in group.bounds:
            out.add_(compare(columns, bound[self.begin : self.end], out=work.take("hidden", *out.shape)), alpha=HIDDEN)
        return out

    def _hide_ends(self, scores: Float[Tensor, "c s w"]) -> None:
        """What stands before the first tile of a round belongs to another; behind the last real row there is none."""
        group, last = self.group, self.group.tiles - 1
        for tile in range(group.back):
            scores[(tile - self.begin) % group.tiles :: group.tiles, :, : (group.back - tile) * group.tile] = HIDDEN
        if behind := group.real % group.tile:
            scores[(last - self.begin) % group.tiles :: group.tiles, :, group.back * group.tile + behind :] = HIDDEN

    def _rounds_met(self) -> Float[Tensor, "c s w"]:
        """The log of the number of rounds in which two rows meet."""
        work, (place, middle, half) = self.group.room.small, self.group.meetings
        keys = self.windows(self.gather("key places", place))
        middle, half = (self.tiles(self.gather(name, x)) for name, x in (("middle", middle), ("half", half)))
        met = work.take("met", *middle.shape[:2], keys.shape[1]).zero_()
        away = work.take("away", *met.shape)
        for turn in range(self.group.rounds):
            torch.sub(keys[:, None, :, turn], middle[:, :, None, turn], out=away)
            met.add_(away.abs_().lt_(half[:, :, None, turn]))
        return met.clamp_(min=1).log2_()


def _groups(room: _Room, found: Sorted, real: tuple[int, ...], window: Window) -> Iterator[_Group]:
    """Heads one after the other with as many real rows, as many at a time as a workspace is for."""
    rows = ROWS if room.small.device.type == "cpu" else 64 * ROWS
    step = max(1, rows // max(1, found.order.shape[1] * found.order.shape[2]))
    for count, heads in groupby(range(len(real)), key=real.__getitem__):
        first, *others = heads
        end = first + len(others) + 1
        for begin in range(first, end if count else first, step):
            yield _Group(room, found, slice(begin, min(end, begin + step)), count, window)


def _inverse_norms(x: Float[Tensor, "t d"]) -> Float[Tensor, "t 1"]:
    """What brings each row to unit length; a row of zeros stays as it is."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.reciprocal().masked_fill_(norm == 0, 0)


def _shared(group: _Group, v: Float[Tensor, "m2 n e"], heads: int) -> tuple[Int[Tensor, " h"], Float[Tensor, "t e"]]:
    """For each head of a group the head of its values, and these values."""
    numbers = torch.arange(group.heads.start, group.heads.stop, device=v.device) // (heads // len(v))
    chosen = v[group.heads] if heads == len(v) else v.index_select(0, numbers)
    return numbers, chosen.flatten(0, 1)


def _forward(group: _Group, q: Float[Tensor, "t d"], v: Float[Tensor, "t e"]) -> tuple[Tensor, Tensor]:
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
    group: _Group,
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


def _of_real(group: _Group, lse: Float[Tensor, "t 1"]) -> Float[Tensor, "p 1"]:
    """The log-sum-exp at each place; inf where no real row stands, and 0 where it is -inf: both make weights zero."""
    at = torch.index_select(lse, 0, group.index, out=group.room.large.take("lse", group.pad + group.places, 1))
    at.masked_fill_(at == -math.inf, 0)
    at[group.pad :].view(group.runs, -1)[:, group.real :] = math.inf
    return at


class _AmongSorted(torch.autograd.Function):
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
        for group in _groups(_Room.of(q), found, real, window):
            values = _shared(group, v, len(q))[1]
            mean, lse_of = _forward(group, q[group.heads].flatten(0, 1), values)
            alone = (lse_of == -math.inf) & (group.place[:, :1] > 0)
            out[group.heads] = torch.where(alone, values, mean).view_as(out[group.heads])
            lse[group.heads] = lse_of.view_as(lse[group.heads])
        ctx.save_for_backward(q, v, out, lse, *found)
        ctx.real, ctx.window = real, window
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, v, out, lse, *found = ctx.saved_tensors
        grad_q, grad_v = torch.zeros_like(q), torch.zeros_like(v)
        for group in _groups(_Room.of(q), Sorted(*found), ctx.real, ctx.window):
            numbers, values = _shared(group, v, len(q))
            given, lse_of = (x[group.heads].flatten(0, 1) for x in (grad, lse))
            inner = (given * out[group.heads].flatten(0, 1)).sum(-1, keepdim=True)
            to_q, to_v = _backward(group, q[group.heads].flatten(0, 1), values, lse_of, given, inner)
            alone = (lse_of == -math.inf) & (group.place[:, :1] > 0)
            to_v.add_(given.masked_fill(~alone, 0))
            grad_q[group.heads] = to_q.view_as(grad_q[group.heads])
            grad_v.index_add_(0, numbers, to_v.view(-1, *grad_v.shape[1:]))
        return grad_q, grad_v, *(None,) * 6

"""Sorted rows in pieces of work: which rows stand where, what of them each tile sees, and what is hidden from it.

The rounds of some heads lie one after the other, cut into tiles of places. A piece is some tiles in a row: its rows are
gathered into a workspace, those before its first tile included, and the windows of its tiles are views of them that
overlap. What is not allowed is added to the scores as a huge negative number, which is exact and much faster than to
fill it in under a mask.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import torch

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


@dataclass
class Room:
    """Where a call computes: small buffers that stay with the thread, and large ones of its own."""

    small: Workspace
    large: Workspace
    whole: Workspace

    @classmethod
    def of(cls, like: Tensor) -> "Room":
        """In the dtype of the rows."""
        small, whole = (workspace(dtype, like.device) for dtype in (like.dtype, torch.int32))
        return cls(small, Workspace(like.dtype, like.device), whole)


@dataclass
class Group:
    """Some heads with as many real rows each: their rounds, tile by tile, one after the other.

    Before the first tile there is room for `back` more, at least one, in which nothing stands: `pad` places.
    """

    room: Room
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

    def pieces(self) -> Iterator["Piece"]:
        """All tiles in order, some at a time."""
        step = max(1, SCORES // (self.tile * self.width))
        end = self.runs * self.tiles
        for begin in range(0, end, step):
            yield Piece(self, begin, min(end, begin + step))


@dataclass
class Piece:
    """Some tiles of a group, counted through all of its rounds."""

    group: Group
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


def groups(room: Room, found: Sorted, real: tuple[int, ...], window: Window) -> Iterator[Group]:
    """Heads one after the other with as many real rows, as many at a time as a workspace is for."""
    rows = ROWS if room.small.device.type == "cpu" else 64 * ROWS
    step = max(1, rows // max(1, found.order.shape[1] * found.order.shape[2]))
    for count, heads in groupby(range(len(real)), key=real.__getitem__):
        first, *others = heads
        end = first + len(others) + 1
        for begin in range(first, end if count else first, step):
            yield Group(room, found, slice(begin, min(end, begin + step)), count, window)

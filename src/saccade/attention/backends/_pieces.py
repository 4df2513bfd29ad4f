"""Cuts one part of a layout into pieces of work: rectangles of queries and keys that fit into a cache.

Flat tensors hold the tiles of all examples and heads one after the other (`_flat.py`). A piece knows where in them
its queries and keys lie, how to fetch them and where results go.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch

from saccade.attention.backends._flat import Flat
from saccade.attention.backends._tiles import Workspace
from saccade.attention.layout import Group, Part
from saccade.shapes import Bool, Float, Int, Tensor

CHUNK_SCORES = 600_000
"""Scores in one piece: few enough to stay in a cache of some MB, many enough to feed the matrix products."""

TYPICAL_DIM = 32
"""Gathered keys count like so many scores each, where tiles have fewer queries."""

KEPT_MASKS = 2**21
"""Numbers in masks up to which the pieces of a call are kept for the next: 8 MB in fp32."""

WINDOW_SCORES = 40_000
"""Scores of one head from which on a moving window is worth pieces of its own, head by head (docs/log.md)."""


class Piece(ABC):
    """A rectangle of work. `m` counts its members, each with the same number of queries and of keys."""

    bias: Float[Tensor, "#m q k"] | None
    hidden: Bool[Tensor, "m k"] | None

    @abstractmethod
    def fetch_queries(self, work: Workspace, name: str, flat: Float[Tensor, "n s d"]) -> Float[Tensor, "m q d"]:
        """What belongs to the queries of this piece: queries, log-sum-exp, gradient of the output."""

    @abstractmethod
    def fetch_keys(self, work: Workspace, name: str, flat: Float[Tensor, "n s d"]) -> Float[Tensor, "m k d"]:
        """What belongs to the keys of this piece: keys or values."""

    @abstractmethod
    def room(self, work: Workspace, name: str, flat: Float[Tensor, "n s d"]) -> Float[Tensor, "m q d"]:
        """Where to compute what `put_queries` will write: in place if that can be, else in the workspace."""

    @abstractmethod
    def put_queries(self, flat: Float[Tensor, "n s d"], value: Float[Tensor, "m q d"]) -> None:
        """Write what was computed for the queries; each query belongs to one piece."""

    @abstractmethod
    def add_to_keys(
        self,
        work: Workspace,
        flat: Float[Tensor, "n s d"],
        weights: Float[Tensor, "m q k"],
        rows: Float[Tensor, "m q d"],
        scale: float,
    ) -> None:
        """Add `scale * weights^T rows` to the keys of this piece; a key belongs to many pieces."""


@dataclass(frozen=True)
class TilePiece(Piece):
    """Query tiles with equally long lists of key tiles."""

    queries: Int[Tensor, " m"]
    keys: Int[Tensor, "m s"]
    bias: Float[Tensor, "#m q k"] | None
    hidden: Bool[Tensor, "m k"] | None

    def fetch_queries(self, work: Workspace, name: str, flat: Float[Tensor, "n s d"]) -> Float[Tensor, "m q d"]:
        """Gather whole tiles."""
        return work.gather(name, flat, self.queries)

    def fetch_keys(self, work: Workspace, name: str, flat: Float[Tensor, "n s d"]) -> Float[Tensor, "m k d"]:
        """Gather whole tiles; the list of a member becomes one row of keys."""
        return work.gather(name, flat, self.keys.flatten()).view(len(self.keys), -1, flat.shape[2])

    def room(self, work: Workspace, name: str, flat: Float[Tensor, "n s d"]) -> Float[Tensor, "m q d"]:
        """In the workspace, as the tiles lie apart."""
        return work.take(name, len(self.queries), *flat.shape[1:])

    def put_queries(self, flat: Float[Tensor, "n s d"], value: Float[Tensor, "m q d"]) -> None:
        """Write whole tiles."""
        flat.index_copy_(0, self.queries, value.to(flat.dtype))

    def add_to_keys(
        self,
        work: Workspace,
        flat: Float[Tensor, "n s d"],
        weights: Float[Tensor, "m q k"],
        rows: Float[Tensor, "m q d"],
        scale: float,
    ) -> None:
        """Multiply into a workspace, then add whole tiles."""
        out = work.take("to_keys", len(weights), weights.shape[2], rows.shape[2])
        torch.baddbmm(out, weights.mT, rows, beta=0, alpha=scale, out=out)
        flat.index_add_(0, self.keys.flatten(), out.view(-1, *flat.shape[1:]))


@dataclass(frozen=True)
class WindowPiece(Piece):
    """Consecutive query tiles of one head, each with the key tiles one further than the last one's.

    Nothing is gathered: the lists of keys are overlapping views of the flat keys.
    """

    query: int
    key: int
    members: int
    length: int
    bias: Float[Tensor, "#m q k"] | None
    hidden: Bool[Tensor, "m k"] | None

    def fetch_queries(self, work: Workspace, name: str, flat: Float[Tensor, "n s d"]) -> Float[Tensor, "m q d"]:
        """The tiles where they are."""
        return flat[self.query : self.query + self.members].to(work.dtype)

    def fetch_keys(self, work: Workspace, name: str, flat: Float[Tensor, "n s d"]) -> Float[Tensor, "m k d"]:
        """Overlapping views, one tile apart."""
        size, dim = flat.shape[1:]
        shape, strides = (self.members, self.length * size, dim), (size * dim, dim, 1)
        return flat.as_strided(shape, strides, flat.storage_offset() + self.key * size * dim).to(work.dtype)

    def room(self, work: Workspace, name: str, flat: Float[Tensor, "n s d"]) -> Float[Tensor, "m q d"]:
        """In place, unless the result is kept in a lower precision."""
        place = flat[self.query : self.query + self.members]
        return place if flat.dtype == work.dtype else work.take(name, *place.shape)

    def put_queries(self, flat: Float[Tensor, "n s d"], value: Float[Tensor, "m q d"]) -> None:
        """Write to the tiles where they are, unless it was computed there."""
        place = flat[self.query : self.query + self.members]
        if value.data_ptr() != place.data_ptr():
            place.copy_(value)

    def add_to_keys(
        self,
        work: Workspace,
        flat: Float[Tensor, "n s d"],
        weights: Float[Tensor, "m q k"],
        rows: Float[Tensor, "m q d"],
        scale: float,
    ) -> None:
        """Multiply into one key tile of every member at a time: within such a step they do not overlap."""
        for shift, part in enumerate(weights.split(flat.shape[1], dim=2)):
            begin = self.key + shift
            flat[begin : begin + self.members].baddbmm_(part.mT, rows, alpha=scale)


@dataclass(frozen=True)
class RowPiece(Piece):
    """Single queries against all keys of their heads: members are key heads `begin .. end - 1`."""

    begin: int
    end: int
    n_k: int
    rows: Int[Tensor, "m q"]
    there: Bool[Tensor, "m q"]
    bias: Float[Tensor, "m q k"] | None
    hidden: Bool[Tensor, "m k"] | None

    def fetch_queries(self, work: Workspace, name: str, flat: Float[Tensor, "n s d"]) -> Float[Tensor, "m q d"]:
        """Gather single rows."""
        rows = flat.flatten(0, 1)[:, None]
        return work.gather(name, rows, self.rows.flatten()).view(*self.rows.shape, -1)

    def _heads(self, flat: Float[Tensor, "n s d"]) -> Float[Tensor, "m k d"]:
        n_heads = flat.shape[0] * flat.shape[1] // self._padded(flat)
        return flat.view(n_heads, -1, flat.shape[2])[self.begin : self.end, : self.n_k]

    def _padded(self, flat: Float[Tensor, "n s d"]) -> int:
        return -(-self.n_k // flat.shape[1]) * flat.shape[1]

    def fetch_keys(self, work: Workspace, name: str, flat: Float[Tensor, "n s d"]) -> Float[Tensor, "m k d"]:
        """All keys of these heads, where they are."""
        return self._heads(flat).to(work.dtype)

    def room(self, work: Workspace, name: str, flat: Float[Tensor, "n s d"]) -> Float[Tensor, "m q d"]:
        """In the workspace, as the rows lie apart."""
        return work.take(name, *self.rows.shape, flat.shape[2])

    def put_queries(self, flat: Float[Tensor, "n s d"], value: Float[Tensor, "m q d"]) -> None:
        """Write single rows, those that are there."""
        flat.flatten(0, 1).index_copy_(0, self.rows[self.there], value[self.there].to(flat.dtype))

    def add_to_keys(
        self,
        work: Workspace,
        flat: Float[Tensor, "n s d"],
        weights: Float[Tensor, "m q k"],
        rows: Float[Tensor, "m q d"],
        scale: float,
    ) -> None:
        """Multiply into all keys of these heads."""
        self._heads(flat).baddbmm_(weights.mT, rows, alpha=scale)


def pieces(flat: Flat, key_mask: Bool[Tensor, "b k"] | None, key_heads: int, work: Workspace) -> Iterable[Piece]:
    """All the work of a part, cut to fit the workspace. Without a key mask the same for the next call of its kind."""
    if key_mask is None and _mask_numbers(flat) <= KEPT_MASKS:
        return _kept(flat, work.dtype, work.device)
    return _cut(flat, flat.hidden(key_mask, key_heads), key_mask, work)


@lru_cache(maxsize=32)
def _kept(flat: Flat, dtype: torch.dtype, device: torch.device) -> tuple[Piece, ...]:
    return tuple(_cut(flat, None, None, Workspace(dtype, device)))


def _mask_numbers(flat: Flat) -> int:
    """Numbers in the masks of all pieces that do not share one."""
    part = flat.part
    own = sum(group.keys.numel() for group in part.groups if len(group.masks) > 1) * part.size**2
    rows = 0 if part.row_mask is None else part.row_mask.numel()
    return (own + rows) * (flat.examples // part.examples) * (flat.heads // part.heads)


def _cut(
    flat: Flat, hidden: Bool[Tensor, "t s"] | None, key_mask: Bool[Tensor, "b k"] | None, work: Workspace
) -> Iterator[Piece]:
    for group in flat.part.groups:
        cut = _window_pieces if _is_window(flat.part, group) else _tile_pieces
        yield from cut(flat, group, hidden, work)
    if flat.part.rows.numel():
        yield from _row_pieces(flat, key_mask, work)


def _is_window(part: Part, group: Group) -> bool:
    """Whether a group is a run of query tiles whose lists of keys move along with them."""
    alike = part.examples == part.heads == len(group.masks) == 1
    if not alike or group.keys.numel() * part.size**2 < WINDOW_SCORES:
        return False
    run = torch.arange(len(group.query), device="cpu")
    listed = group.keys[0, 0] + run[:, None] + torch.arange(group.keys.shape[1], device="cpu")
    return bool((group.query == group.query[0] + run).all() and (group.keys == listed).all())


def _step(size: int, length: int) -> int:
    """Members in a piece: so that neither scores nor gathered keys are too many for a cache."""
    return max(1, CHUNK_SCORES // (size * length * max(size, TYPICAL_DIM)))


def _window_pieces(
    flat: Flat, group: Group, hidden_tiles: Bool[Tensor, "t s"] | None, work: Workspace
) -> Iterator[WindowPiece]:
    """One run of query tiles, head by head, in chunks."""
    part, length, members = flat.part, group.keys.shape[1], len(group.query)
    bias = _bias(part.table[group.masks].transpose(1, 2).flatten(2), work)
    query, key = int(group.query[0]) - part.first_tile, int(group.keys[0, 0])
    step = _step(part.size, length)
    for lead in range(flat.examples * flat.heads):
        query_lead = lead * part.query_tiles + query
        key_lead = lead // (flat.heads // flat.key_heads) * flat.key_tiles + key
        for begin in range(0, members, step):
            count, first = min(step, members - begin), key_lead + begin
            hidden = None
            if hidden_tiles is not None:
                listed = torch.arange(first, first + count, device="cpu")[:, None] + torch.arange(length, device="cpu")
                hidden = _if_any(hidden_tiles[listed.to(work.device)].flatten(1))
            yield WindowPiece(query_lead + begin, first, count, length, bias, hidden)


def _tile_pieces(
    flat: Flat, group: Group, hidden_tiles: Bool[Tensor, "t s"] | None, work: Workspace
) -> Iterator[TilePiece]:
    """One group, repeated for the examples and heads that are alike, in chunks."""
    part, device, table = flat.part, work.device, flat.part.table
    example = group.example + torch.arange(flat.examples // part.examples, device="cpu")[:, None, None]
    head = group.head + torch.arange(flat.heads // part.heads, device="cpu")[:, None]
    lead = example * flat.heads + head
    key_lead = example * flat.key_heads + head // (flat.heads // flat.key_heads)
    queries = (lead * part.query_tiles + group.query - part.first_tile).flatten()
    keys = (key_lead[..., None] * flat.key_tiles + group.keys).flatten(0, 2)
    shared = len(group.masks) == 1
    masks = group.masks if shared else group.masks.expand(*lead.shape, -1).flatten(0, 2)
    bias = _bias(table[masks].transpose(1, 2).flatten(2), work) if shared else None
    step = _step(part.size, keys.shape[1])
    for begin in range(0, len(queries), step):
        chunk = slice(begin, begin + step)
        if not shared:
            bias = _bias(table[masks[chunk]].transpose(1, 2).flatten(2), work)
        hidden = None if hidden_tiles is None else _if_any(hidden_tiles[keys[chunk].to(device)].flatten(1))
        yield TilePiece(queries[chunk].to(device), keys[chunk].to(device), bias, hidden)


def _row_pieces(flat: Flat, key_mask: Bool[Tensor, "b k"] | None, work: Workspace) -> Iterator[RowPiece]:
    """The dense rows: several key heads at a time, or some rows of one where those are many."""
    part, b, h, g, device = flat.part, flat.examples, flat.heads, flat.key_heads, work.device
    rows = part.rows.repeat(b // part.examples, h // part.heads, 1)
    lead = torch.arange(b * h, device="cpu").view(b, h, 1)
    place = (lead * part.query_tiles * part.size + rows.clamp(min=0) + part.front).view(b * g, h // g, -1)
    there = (rows >= 0).reshape(b * g, h // g, -1)
    mask = None if part.row_mask is None else part.row_mask.expand(b, h, -1, -1)
    heads_step = max(1, CHUNK_SCORES // max(1, h // g * rows.shape[2] * part.n_k))
    rows_step = max(1, CHUNK_SCORES // (h // g * part.n_k)) if heads_step == 1 else rows.shape[2]
    for begin in range(0, b * g, heads_step):
        heads = torch.arange(begin, min(begin + heads_step, b * g), device="cpu")
        hidden = None if key_mask is None else ~key_mask[(heads // g).to(device)]
        for row in range(0, rows.shape[2], rows_step):
            chunk = slice(row, row + rows_step)
            bias = None
            if mask is not None:
                query_head = heads[:, None] % g * (h // g) + torch.arange(h // g, device="cpu")
                bias = _bias(mask[heads[:, None] // g, query_head, chunk].flatten(1, 2), work)
            at, real = (x[heads, :, chunk].flatten(1).to(device) for x in (place, there))
            yield RowPiece(begin, int(heads[-1]) + 1, part.n_k, at, real, bias, hidden)


def _bias(allowed: Bool[Tensor, "m q k"], work: Workspace) -> Float[Tensor, "m q k"] | None:
    """0 where a pair is allowed and -inf where not; `None` where all are."""
    if bool(allowed.all()):
        return None
    zeros = torch.zeros(allowed.shape, dtype=work.dtype, device=work.device)
    return zeros.masked_fill_(~allowed.to(work.device), -math.inf)


def _if_any(hidden: Bool[Tensor, "m k"]) -> Bool[Tensor, "m k"] | None:
    """`None` where nothing is hidden, which spares a pass over the scores."""
    return hidden if bool(hidden.any()) else None

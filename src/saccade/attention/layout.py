"""From a bound pattern to the key tiles each query tile visits, built without an n * n array.

A layout is one order of tiles and, for each query tile, a list of key tiles with a mask for each: full, or one of
a small table of partial masks. Query tiles whose lists have the same length and masks form a *group*, which an
engine computes with rectangular matrix products. A few queries that look nearly everywhere (global rows) are left
out of the tiles and listed as `rows`.

Cost: time and memory follow the number of visited tiles.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from saccade.attention.patterns import Bound, Pairs, Pattern, Scope
from saccade.shapes import Bool, Int

FULL = 0
"""Number of the mask that lets every pair through."""

SHARED_BY = 8
"""Members from which on a list of masks gets a group of its own, which spares gathering masks for each."""


@dataclass(frozen=True, eq=False)
class Group:
    """Query tiles that visit equally many key tiles.

    Attributes:
        example: example of each member (0 where all examples are alike).
        head: head of each member (0 where all heads are alike).
        query: query tile of each member.
        keys: the key tiles it visits, ascending.
        masks: number of the mask of each of those; one row where all members share it.
    """

    example: Int[Tensor, " m"]
    head: Int[Tensor, " m"]
    query: Int[Tensor, " m"]
    keys: Int[Tensor, "m s"]
    masks: Int[Tensor, "m2 s"]


@dataclass(frozen=True, eq=False)
class Layout:
    """Everything an engine needs to visit the allowed pairs and no other tile.

    Attributes:
        n_k: number of keys.
        size: positions in a tile, of queries and of keys. Query tiles begin at multiples of it, too.
        query_tiles: query tiles of one head.
        examples: examples that are told apart, 1 where all are alike.
        heads: heads that are told apart, 1 where all are alike.
        groups: the query tiles that see anything.
        table: the masks, number 0 full: True where a pair is allowed.
        rows: queries computed against all keys, counted from the first query; -1 where an example has fewer.
        row_mask: which keys those see, `None` where all of them see all.
    """

    n_k: int
    size: int
    query_tiles: int
    examples: int
    heads: int
    groups: tuple[Group, ...]
    table: Bool[Tensor, "m s s"]
    rows: Int[Tensor, "b h r"]
    row_mask: Bool[Tensor, "b h r k"] | None

    @property
    def covers(self) -> bool:
        """Whether every query tile sees something."""
        query_tiles = self.examples * self.heads * self.query_tiles
        return sum(len(group.query) for group in self.groups) == query_tiles

    @property
    def visited(self) -> int:
        """Pairs that are computed, over all examples and heads that are told apart."""
        tiles = sum(group.keys.numel() for group in self.groups)
        return tiles * self.size**2 + self.rows.numel() * self.n_k

    @property
    def pairs(self) -> int:
        """Pairs that are allowed, each counted once."""
        weight = self.table.sum(dim=(1, 2))
        tiled = sum(int(weight[group.masks].sum()) * len(group.keys) // len(group.masks) for group in self.groups)
        whole_rows = self.rows.numel() * self.n_k
        return tiled + (whole_rows if self.row_mask is None else int(self.row_mask.sum()))


def tile_size(pattern: Pattern, largest: int = 64) -> int:
    """The largest tile, down to 16, that divides the blocks a pattern is drawn in; the largest if none does."""
    sizes = [size for size in (largest, largest // 2, largest // 4) if size >= 16]
    return next((size for size in sizes if all(block % size == 0 for block in pattern.tile_sizes)), largest)


def layout(bound: Bound, size: int | None = None) -> Layout:
    """The layout of a bound pattern; the same object for the same pattern and lengths.

    Args:
        bound: pattern and lengths.
        size: positions in a tile; chosen to suit the pattern if not given.
    """
    return _build(bound.pattern, bound.scope, size or tile_size(bound.pattern))


@lru_cache(maxsize=64)
def _build(pattern: Pattern, scope: Scope, size: int) -> Layout:
    rows, row_mask, is_row = _rows(pattern, scope)
    tiles, shape = _tiles(pattern, scope, size)
    numbers, table = _masks(pattern, scope, size, tiles, is_row)
    keep = numbers >= 0
    tiles, numbers = Pairs(*(axis[keep] for axis in tiles)), numbers[keep]
    query_tiles = len(scope.query_tiles(size))
    rows, row_mask = rows.expand(*shape, -1), None if row_mask is None else row_mask.expand(*shape, -1, -1)
    return Layout(scope.n_k, size, query_tiles, *shape, _groups(tiles, numbers), table, rows, row_mask)


def _rows(
    pattern: Pattern, scope: Scope
) -> tuple[Int[Tensor, "b h r"], Bool[Tensor, "b h r k"] | None, Bool[Tensor, "b h q"]]:
    """The queries that are computed on their own: where they are, what they see, and which queries they are."""
    dense = pattern.dense_rows(scope)
    if dense is None:
        dense = torch.zeros(1, 1, scope.n_q, dtype=torch.bool)
    count = int(dense.sum(-1).max()) if dense.numel() else 0
    rows = dense.long().argsort(dim=-1, descending=True, stable=True)[..., :count]
    there = dense.gather(-1, rows)
    b = torch.arange(dense.shape[0])[:, None, None, None]
    h = torch.arange(dense.shape[1])[:, None, None]
    at = Pairs(b, h, rows[..., None] + scope.q_start, torch.arange(scope.n_k))
    mask = pattern.sees(scope, at).expand(*rows.shape, scope.n_k) & there[..., None]
    return torch.where(there, rows, -1), None if bool(mask.all()) else mask, dense


def _tiles(pattern: Pattern, scope: Scope, size: int) -> tuple[Pairs, tuple[int, int]]:
    """Every pair of tiles that the spans touch, once, ordered by example, head, query tile, key tile."""
    queries, n_tiles = scope.query_tiles(size), -(-scope.n_k // size)
    spans = pattern.spans(scope, torch.arange(queries.start, queries.stop), size).clamp(0, n_tiles)
    low, high = spans[..., 0].flatten(), spans[..., 1].flatten()
    width = (high - low).clamp(min=0)
    span = torch.repeat_interleave(torch.arange(len(width)), width)
    within = torch.arange(len(span)) - (width.cumsum(0) - width)[span]
    row = span // max(spans.shape[3], 1)
    flat = torch.unique(row * n_tiles + low[span] + within)
    row, key = flat // max(n_tiles, 1), flat % max(n_tiles, 1)
    n_rows, heads = spans.shape[2], spans.shape[1]
    lead = row // max(n_rows, 1)
    return Pairs(lead // heads, lead % heads, row % max(n_rows, 1) + queries.start, key), (spans.shape[0], heads)


def _masks(
    pattern: Pattern, scope: Scope, size: int, tiles: Pairs, is_row: Bool[Tensor, "b h q"]
) -> tuple[Int[Tensor, " t"], Bool[Tensor, "m s s"]]:
    """Number of each tile's mask, -1 where it lets nothing through, and the masks. Alike tiles are asked once."""
    kind, example = _kinds(pattern, scope, size, tiles)
    corner = Pairs(*(axis[example, None, None] for axis in tiles))
    within = torch.arange(size)
    at = corner._replace(q=corner.q * size + within[:, None], k=corner.k * size + within)
    number_q = at.q - scope.q_start
    row = is_row[
        corner.b.clamp(max=is_row.shape[0] - 1),
        corner.h.clamp(max=is_row.shape[1] - 1),
        number_q.clamp(0, max(scope.n_q - 1, 0)),
    ]
    inside = (number_q >= 0) & (number_q < scope.n_q) & (at.k < scope.n_k)
    seen = (pattern.sees(scope, at) & inside & ~row).flatten(1)
    full, partial = seen.all(1), seen.any(1) & ~seen.all(1)
    number = torch.where(full, FULL, -1)
    distinct, which = seen[partial].unique(dim=0, return_inverse=True)
    number[partial] = which + 1
    table = torch.cat([torch.ones(1, size * size, dtype=torch.bool), distinct])
    return number[kind], table.unflatten(1, (size, size))


def _kinds(pattern: Pattern, scope: Scope, size: int, tiles: Pairs) -> tuple[Int[Tensor, " t"], Int[Tensor, " u"]]:
    """Which tiles have the same mask: a number for each tile, and one example tile for each number."""
    ends = [
        tiles.q * size < scope.q_start,
        (tiles.q + 1) * size > scope.q_start + scope.n_q,
        (tiles.k + 1) * size > scope.n_k,
    ]
    kind = torch.zeros_like(tiles.q)
    for key in (*ends, *pattern.tile_keys(scope, size, tiles).unbind(1)):
        distinct = key.unique(return_inverse=True)[1]
        kind = (kind * (len(kind) + 1) + distinct).unique(return_inverse=True)[1]
    example = torch.zeros(int(kind.max()) + 1 if len(kind) else 0, dtype=torch.long)
    example[kind] = torch.arange(len(kind))
    return kind, example


def _groups(tiles: Pairs, masks: Int[Tensor, " t"]) -> tuple[Group, ...]:
    """Gather the tiles of each query tile into a list, and the query tiles with equally long lists into groups."""
    owner = torch.stack(tiles[:3])
    begins = torch.ones(owner.shape[1], dtype=torch.bool)
    begins[1:] = (owner[:, 1:] != owner[:, :-1]).any(0)
    start = begins.nonzero()[:, 0]
    count = torch.diff(start, append=torch.tensor([owner.shape[1]]))
    groups = []
    for length in count.unique().tolist():
        first = start[count == length]
        listed = first[:, None] + torch.arange(length)
        example, head, query = owner[:, first]
        for part, lists in _alike(masks[listed]):
            groups.append(Group(example[part], head[part], query[part], tiles.k[listed[part]], lists))
    return tuple(groups)


def _alike(masks: Int[Tensor, "m s"]) -> list[tuple[Int[Tensor, " i"], Int[Tensor, "m2 s"]]]:
    """Split members into those that share one list of masks with many others, and the rest."""
    lists, which, members = masks.unique(dim=0, return_inverse=True, return_counts=True)
    common = (members >= SHARED_BY) | (members == len(masks))
    split = [((which == number).nonzero()[:, 0], lists[number, None]) for number in common.nonzero()[:, 0]]
    rest = (~common[which]).nonzero()[:, 0]
    return [*split, (rest, masks[rest])] if len(rest) else split

"""One part of a layout: an order of queries and keys, and for each tile of queries the key tiles it visits.

Query tiles whose lists have the same length and masks form a *group*, which an engine computes with rectangular
matrix products. A few queries that look nearly everywhere (global rows) are left out of the tiles and listed as `rows`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from saccade.attention.patterns import Pairs
from saccade.shapes import Bool, Int

FULL = 0
"""Number of the mask that lets every pair through."""

SIZES = {64: 1.0, 32: 1.08, 16: 1.25}
"""Places in a tile, and the time of a pair in it next to one in the largest (docs/log.md)."""

SHARED_BY = 8
"""Members from which on a list of masks gets a group of its own, which spares gathering masks for each."""

ASKED = 2**23
"""Pairs of which a pattern is asked at once."""


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
class Part:
    """Tiles of queries and of keys in one order.

    Attributes:
        n_k: number of keys.
        size: places in a tile, of queries and of keys.
        front: places before the first query in its tile.
        first_tile: number of the first query tile.
        query_tiles: query tiles of one head.
        examples: examples that are told apart, 1 where all are alike.
        heads: heads that are told apart, 1 where all are alike.
        groups: the query tiles that see anything.
        table: the masks, number 0 full: True where a pair is allowed.
        rows: queries computed against all keys, counted from the first query; -1 where an example has fewer.
        row_mask: which keys those see, `None` where all of them see all.
        queries: number of the query at each place, `None` where they are in order.
        keys: number of the key at each place, `None` where they are in order.
    """

    n_k: int
    size: int
    front: int
    first_tile: int
    query_tiles: int
    examples: int
    heads: int
    groups: tuple[Group, ...]
    table: Bool[Tensor, "m s s"]
    rows: Int[Tensor, "b h r"]
    row_mask: Bool[Tensor, "b h r k"] | None = None
    queries: Int[Tensor, "b h q"] | None = None
    keys: Int[Tensor, "b h k"] | None = None

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


def tiles_in(spans: Int[Tensor, "b h r s 2"], first_tile: int, n_tiles: int) -> Pairs:
    """Every pair of tiles that the spans touch, once, ordered by example, head, query tile, key tile."""
    spans = spans.clamp(0, n_tiles)
    low, high = spans[..., 0].flatten(), spans[..., 1].flatten()
    width = (high - low).clamp(min=0)
    span = torch.repeat_interleave(torch.arange(len(width)), width)
    within = torch.arange(len(span)) - (width.cumsum(0) - width)[span]
    row = span // max(spans.shape[3], 1)
    flat = torch.unique(row * n_tiles + low[span] + within)
    row, key = flat // max(n_tiles, 1), flat % max(n_tiles, 1)
    n_rows, heads = spans.shape[2], spans.shape[1]
    lead = row // max(n_rows, 1)
    return Pairs(lead // heads, lead % heads, row % max(n_rows, 1) + first_tile, key)


def masks_of(
    tiles: Pairs,
    alike: Int[Tensor, "t m"],
    size: int,
    seen: Callable[[Pairs], Bool[Tensor, "u s s"]],
) -> tuple[Pairs, Int[Tensor, " kept"], Bool[Tensor, "masks s s"]]:
    """The tiles that let anything through, the number of the mask of each, and the masks.

    Args:
        tiles: the tiles.
        alike: numbers for each tile; where they are equal, the masks are.
        size: places in a tile.
        seen: the masks of some tiles. Of tiles that are alike only one is asked for.
    """
    kind, example = _kinds(alike)
    number = torch.full((len(example),), -1)
    partial, place = [torch.ones(1, size * size, dtype=torch.bool)], []
    for asked in example.split(max(1, ASKED // size**2)):
        mask = seen(Pairs(*(axis[asked] for axis in tiles))).flatten(1)
        whole = mask.all(1)
        some = mask.any(1) & ~whole
        begin = sum(map(len, place))
        here = torch.arange(begin, begin + len(asked))
        number[here[whole]] = FULL
        partial.append(mask[some])
        place.append(here)
        number[here[some]] = 1
    table = torch.cat(partial)
    distinct, which = table[1:].unique(dim=0, return_inverse=True)
    number[number == 1] = which + 1
    number = number[kind]
    keep = number >= 0
    table = torch.cat([table[:1], distinct]).unflatten(1, (size, size))
    return Pairs(*(axis[keep] for axis in tiles)), number[keep], table


def _kinds(alike: Int[Tensor, "t m"]) -> tuple[Int[Tensor, " t"], Int[Tensor, " u"]]:
    """A number for each tile, the same for tiles that are alike, and one example tile for each number."""
    kind = torch.zeros(len(alike), dtype=torch.long)
    for key in alike.unbind(1):
        distinct = key.unique(return_inverse=True)[1]
        kind = (kind * (len(kind) + 1) + distinct).unique(return_inverse=True)[1]
    example = torch.zeros(int(kind.max()) + 1 if len(kind) else 0, dtype=torch.long)
    example[kind] = torch.arange(len(kind))
    return kind, example


def groups_of(tiles: Pairs, masks: Int[Tensor, " t"]) -> tuple[Group, ...]:
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

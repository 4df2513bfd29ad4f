"""Who meets whom where queries and keys are sorted into clusters: lists of queries beside lists of keys.

`Members` are the tokens nearest to each centroid, the same number of queries and of keys in each cluster; a token may
be in several. `Earlier` is causal: every token is in one cluster, and a query meets the keys before it there. Both
come in pieces, rectangles of numbers of rows, for whoever computes the softmax (`gathered.py`). The row behind the last
is nobody: rectangles are filled with it.

Cost: members O(clusters * n) time and memory to choose; earlier O(n log n) to sort; pieces are made one at a time.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.nn.functional import pad

from saccade.shapes import Bool, Float, Int, Tensor

PIECE = 600_000
"""Scores in one piece: few enough to stay in a cache of some MB, many enough to feed the matrix products."""

LEAST = 128
"""Queries that share gathered keys, at least: with fewer, gathering would take as long as the products."""

TILE = 64
"""Queries in a causal tile."""


class Piece(NamedTuple):
    """Members with equally many queries and keys.

    Attributes:
        queries: row of each query.
        keys: row of each key.
        places: where the log-sum-exp of each query is kept.
        hidden: pairs that are not let through, the same for all queries if `q2` is 1; `None` where all are.
    """

    queries: Int[Tensor, "m q"]
    keys: Int[Tensor, "m k"]
    places: Int[Tensor, "m q"]
    hidden: Bool[Tensor, "m q2 k"] | None


def width(live: int, clusters: int, window: int | None) -> int:
    """Queries and keys that a centroid takes of so many tokens."""
    return -(-live // clusters) if window is None else min(window, live)


def nearest(products: Float[Tensor, "m n c"], real: Bool[Tensor, "m n"] | None) -> Int[Tensor, "m n"]:
    """The centroid with the largest product, the first of equals; the number behind the last for hidden tokens."""
    label = products.argmax(-1)
    return label if real is None else label.masked_fill_(~real, products.shape[2])


def chosen(
    products: Float[Tensor, "m c n"], widths: Int[Tensor, " m"], widest: int, real: Bool[Tensor, "m n"] | None
) -> Int[Tensor, "m c w"]:
    """For each centroid the tokens with the largest products, in the order of their positions, `n` behind them.

    Of tokens with equal products the earlier ones are taken. Spoils the products.

    Args:
        products: of each centroid with each token.
        widths: how many tokens a centroid takes.
        widest: the largest of those.
        real: True for tokens that may be taken.
    """
    m, c, n = products.shape
    listed = torch.full((m * c, widest), n, device=products.device)
    if not widest:
        return listed.view(m, c, widest)
    if real is not None:
        products.masked_fill_(~real[:, None], -torch.inf)
    flat = products.flatten(0, 1)
    owner, position = (flat >= _floor(flat, widest)).nonzero(as_tuple=True)
    best = _best(owner, flat[owner, position], widths.repeat_interleave(c), widest)
    owner, position = owner[best], position[best]
    return listed.index_put_((owner, _rank(owner, m * c)[1]), position).view(m, c, widest)


def _floor(values: Float[Tensor, "r n"], count: int) -> Float[Tensor, "r 1"]:
    """What the `count` largest values of each row are not below; of the others few are not, either.

    It is the smallest of the largest maxima of small groups: those are much fewer. Infinitely small values are below.
    """
    n = values.shape[1]
    size = next(size for size in (8, 4, 2, 1) if size == 1 or n // size >= 2 * count)
    groups = n // size
    highest = values if size == 1 else values[:, : size * groups].unflatten(1, (size, groups)).amax(1)
    floor = highest.kthvalue(groups - count + 1, dim=1, keepdim=True).values
    return floor.clamp_(min=torch.finfo(values.dtype).min)


def _best(
    owner: Int[Tensor, " l"], value: Float[Tensor, " l"], widths: Int[Tensor, " r"], widest: int
) -> Bool[Tensor, " l"]:
    """Which values are among the largest of their owner, as many as its width; of equals the first."""
    count, rank = _rank(owner, len(widths))
    ahead = (widest - widths)[:, None]  # so many infinite values, and the same number of each row is its least
    size = max(widest, int((count + ahead[:, 0]).max()))
    table = value.new_full((len(widths), size), -torch.inf)
    table.masked_fill_(torch.arange(size, device=value.device) < ahead, torch.inf)
    table.index_put_((owner, rank + ahead[owner, 0]), value)
    least = table.kthvalue(size - widest + 1, dim=1).values[owner]
    best = value >= least
    excess = torch.bincount(owner[best], minlength=len(widths)) - widths
    if bool((excess > 0).any()):
        tied = (value == least).nonzero()[:, 0]
        count, rank = _rank(owner[tied], len(widths))
        best[tied] = rank < (count - excess.clamp(min=0))[owner[tied]]
    return best


def _rank(owner: Int[Tensor, " l"], owners: int) -> tuple[Int[Tensor, " r"], Int[Tensor, " l"]]:
    """How many entries each owner has, and the number of each entry among those of its owner; owners ascend."""
    count = torch.bincount(owner, minlength=owners)
    return count, torch.arange(len(owner), device=owner.device) - (count.cumsum(0) - count)[owner]


class Members(NamedTuple):
    """The tokens of each cluster.

    Attributes:
        queries: positions, `n` for nobody.
        keys: the same.
        n: the length.
    """

    queries: Int[Tensor, "m c w"]
    keys: Int[Tensor, "m c w"]
    n: int

    def counts(self) -> Int[Tensor, " rows"]:
        """How many clusters each query is in, at least 1 so that one may divide by it."""
        rows = self._rows(self.queries).flatten()
        return torch.bincount(rows, minlength=len(self.queries) * self.n + 1).clamp_(min=1)

    def pieces(self) -> Iterator[Piece]:
        """All clusters, several at a time, or some queries of one where it is large."""
        queries, keys = (self._rows(each).flatten(0, 1) for each in (self.queries, self.keys))
        width = queries.shape[1]
        places = torch.arange(queries.numel(), device=queries.device).view_as(queries)
        hidden = keys == len(self.queries) * self.n
        some = bool(hidden.any())
        keys = keys.masked_fill_(hidden, 0)  # any row will do
        step = max(1, PIECE // max(1, width**2))
        tile = width if width**2 <= PIECE else max(LEAST, PIECE // width)
        for begin in range(0, len(queries) if width else 0, step):
            chunk = slice(begin, begin + step)
            for first in range(0, width, tile):
                part = slice(first, first + tile)
                yield Piece(
                    queries[chunk, part], keys[chunk], places[chunk, part], hidden[chunk, None] if some else None
                )

    def _rows(self, positions: Int[Tensor, "m c w"]) -> Int[Tensor, "m c w"]:
        """Positions in a head as rows of all heads one after the other, behind them nobody."""
        heads, nobody = torch.arange(len(positions), device=positions.device), len(positions) * self.n
        rows = positions + (heads * self.n)[:, None, None]
        return rows.masked_fill_(positions == self.n, nobody)


class Earlier(NamedTuple):
    """Tokens sorted by head, cluster and position; each query sees a run of keys.

    Attributes:
        queries: row of each query, sorted; whole tiles, filled with nobody.
        keys: row of each key, sorted.
        low: the first key that each query sees, by its number in the order of keys.
        high: the first behind those.
    """

    queries: Int[Tensor, "t q"]
    keys: Int[Tensor, " rows"]
    low: Int[Tensor, "t q"]
    high: Int[Tensor, "t q"]

    @classmethod
    def of(cls, queries: Int[Tensor, "m n"], keys: Int[Tensor, "m n"], clusters: int, window: int | None) -> "Earlier":
        """From the cluster of each token; number `clusters` is that of hidden ones, which nobody sees."""
        n = queries.shape[1]
        code, order = _sorted(queries, clusters)
        key_code, key_order = (code, order) if keys is queries else _sorted(keys, clusters)
        high = torch.searchsorted(key_code, code)
        low = torch.searchsorted(key_code, code - code % n)
        if window is not None:
            low = torch.maximum(low, high - (window - 1))
        low = torch.where(code // n % (clusters + 1) == clusters, high, low)
        fill = -len(order) % TILE
        padded = pad(order, (0, fill), value=len(order)), pad(low, (0, fill)), pad(high, (0, fill))
        tiles, low, high = (each.view(-1, TILE) for each in padded)
        return cls(tiles, key_order, low, high)

    def pieces(self) -> Iterator[Piece]:
        """Tiles that see about equally many keys; those that see none are left out."""
        none, last = self.low >= self.high, len(self.keys) - 1
        start = self.low.masked_fill(none, len(self.keys)).amin(1)
        length, order = (self.high.masked_fill(none, 0).amax(1) - start).clamp(min=0).sort(descending=True)
        begin, lengths = 0, length.tolist()
        while begin < len(lengths) and lengths[begin]:
            longest = lengths[begin]
            tiles = order[begin : begin + max(1, PIECE // (TILE * max(longest, TILE)))]
            run = start[tiles, None] + torch.arange(longest, device=order.device)
            hidden = (run[:, None] >= self.high[tiles, :, None]) | (run[:, None] < self.low[tiles, :, None])
            yield Piece(self.queries[tiles], self.keys[run.clamp(max=last)], self.queries[tiles], hidden)
            begin += len(tiles)


def _sorted(labels: Int[Tensor, "m n"], clusters: int) -> tuple[Int[Tensor, " rows"], Int[Tensor, " rows"]]:
    """Codes that order by head, cluster and position, ascending, and the row that each belongs to."""
    m, n = labels.shape
    # One flat sort of small whole numbers: torch then takes its radix sort.
    clustered = labels + torch.arange(m, device=labels.device)[:, None] * (clusters + 1)
    clustered, row = clustered.int().flatten().sort(stable=True)
    return clustered.long() * n + row % n, row


def even_pairs(n: int, clusters: int, window: int | None) -> tuple[int, int]:
    """Pairs of one head, causally, and those that are computed, where clusters are equally large."""
    size = -(-n // clusters)
    most = size if window is None else min(window, size)
    sizes = [size] * (n // size if size else 0) + [n % size if size else 0]
    pairs = sum(min(each, most) * (min(each, most) + 1) // 2 + max(each - most, 0) * most for each in sizes)
    spans = (min(first + TILE, n) - 1 - max(first // size * size, first - most + 1) for first in range(0, n, TILE))
    return pairs, max(pairs, TILE * sum(spans))

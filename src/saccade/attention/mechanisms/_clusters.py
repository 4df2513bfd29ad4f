"""Who meets whom where queries and keys are sorted into clusters: lists of queries beside lists of keys.

`Members` are the tokens nearest to each centroid, the same number of queries and of keys in each cluster; a token may
be in several. `Earlier` is causal: every token is in one cluster, and a query meets the keys before it there. Both
come in pieces, rectangles of numbers of rows, for whoever computes the softmax (`_gathered.py`). Row `n` stands for
"nobody": it is there so that rectangles can be filled.

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
    m, c, _ = products.shape
    if real is not None:
        products.masked_fill_(~real[:, None], -torch.inf)
    least = products.topk(widest).values.gather(2, (widths - 1).clamp(min=0)[:, None, None].expand(m, c, 1))
    taken = products >= least
    if real is not None:
        taken &= real[:, None]
    excess = taken.sum(2, keepdim=True) - widths[:, None, None]
    if bool((excess > 0).any()):
        tied = products == least
        taken &= ~tied | (tied.cumsum(2) <= tied.sum(2, keepdim=True) - excess)
    return _listed(taken, widest)


def _listed(taken: Bool[Tensor, "m c n"], widest: int) -> Int[Tensor, "m c w"]:
    """The positions that are taken, and `n` behind them."""
    m, c, n = taken.shape
    owner, position = taken.flatten(0, 1).nonzero(as_tuple=True)
    if len(position) == m * c * widest:  # as they take `widest` at most, all take as many
        return position.view(m, c, widest)
    count = taken.sum(2).flatten()
    rank = torch.arange(len(owner), device=owner.device) - (count.cumsum(0) - count)[owner]
    return position.new_full((m, c, widest), n).view(m * c, widest).index_put_((owner, rank), position).view(m, c, -1)


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
    (m, n), device = labels.shape, labels.device
    label, position = labels.sort(dim=1, stable=True)
    head = torch.arange(m, device=device)[:, None]
    return ((head * (clusters + 1) + label) * n + position).flatten(), (head * n + position).flatten()

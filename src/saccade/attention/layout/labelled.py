"""A part of a layout in an order of its own: queries and keys sorted by the label that those who meet share.

Strides regroup by residue, columns of a grid are transposed, scattered segments are collected: then each query sees
one run of keys, and runs of neighbours overlap.
"""

import torch
from torch import Tensor

from saccade.attention.layout.part import SIZES, Part, groups_of, masks_of, tiles_in
from saccade.attention.patterns import Bound, Pairs, Pattern, Scope
from saccade.shapes import Bool, Int


def labelled(pattern: Pattern, scope: Scope, size: int | None, without: Pattern | None) -> Part:
    """A labelled pattern as one part.

    Args:
        pattern: what is laid out.
        scope: the lengths.
        size: places in a tile; whatever visits fewest pairs, if not given.
        without: pairs of this pattern are left out, because another part has them.
    """
    order = _Order(pattern, scope)
    size = min(SIZES, key=lambda each: order.tiles(each) * each**2 * SIZES[each]) if size is None else size
    tiles = tiles_in(order.spans(size), 0, -(-scope.n_k // size))
    seen_by = Bound(pattern if without is None else pattern | without, scope)
    examples, heads = torch.broadcast_shapes(seen_by.told_apart, order.queries.shape[:2])
    lead = examples, heads
    tiles, queries, keys = _expanded(tiles, *lead, order)

    def seen(asked: Pairs) -> Bool[Tensor, "u s s"]:
        at, inside = _positions(asked, queries, keys, scope, size)
        allowed = pattern.sees(scope, at) & inside
        return allowed if without is None else allowed & ~without.sees(scope, at)

    tiles, numbers, table = masks_of(tiles, torch.arange(len(tiles.q))[:, None], size, seen)
    return Part(
        n_k=scope.n_k,
        size=size,
        front=0,
        first_tile=0,
        query_tiles=-(-scope.n_q // size),
        examples=lead[0],
        heads=lead[1],
        groups=groups_of(tiles, numbers),
        table=table,
        rows=torch.zeros(*lead, 0, dtype=torch.long),
        queries=None if _in_order(queries) else queries,
        keys=None if _in_order(keys) else keys,
    )


class _Order:
    """Queries and keys sorted by label, and for each query, in that order, the run of keys that it may see."""

    def __init__(self, pattern: Pattern, scope: Scope) -> None:
        b, h = torch.arange(scope.examples)[:, None, None], torch.arange(scope.heads)[:, None]
        position = torch.arange(scope.q_start, scope.q_start + scope.n_q), torch.arange(scope.n_k)
        labels = [pattern.labels(scope, b, h, each) for each in position]
        lead = torch.broadcast_shapes(*(each.shape[:-1] for each in labels), (1, 1))
        rank = [each.expand(*lead, -1) * (scope.end + 1) + at for each, at in zip(labels, position, strict=True)]
        (query, self.queries), (key, self.keys) = (each.sort(dim=-1, stable=True) for each in rank)
        left, right = pattern.reach(scope)
        within, none = query % (scope.end + 1), query < 0
        low = query - within if left >= scope.end else query - within.clamp(max=int(left))
        high = query + scope.end - within if right >= scope.end else query + (scope.end - within).clamp(max=int(right))
        self.low = torch.searchsorted(key, low).masked_fill(none, 0)
        self.high = torch.searchsorted(key, high, right=True).masked_fill(none, 0)

    def spans(self, size: int) -> Int[Tensor, "b h r 1 2"]:
        """The run of key tiles of each query tile."""
        n_q = self.low.shape[-1]
        fill = -n_q % size
        some = self.low < self.high
        low = torch.nn.functional.pad(self.low.masked_fill(~some, 2**62), (0, fill), value=2**62)
        high = torch.nn.functional.pad(self.high * some, (0, fill))
        low, high = low.unflatten(-1, (-1, size)).amin(-1), high.unflatten(-1, (-1, size)).amax(-1)
        none = low >= high
        spans = torch.stack([low.masked_fill(none, 0) // size, -(-high // size)], dim=-1)
        return spans.masked_fill(none[..., None], 0)[..., None, :]

    def tiles(self, size: int) -> int:
        """How many tiles are visited."""
        spans = self.spans(size)
        return int((spans[..., 1] - spans[..., 0]).sum())


def _expanded(
    tiles: Pairs, examples: int, heads: int, order: _Order
) -> tuple[Pairs, Int[Tensor, "b h q"], Int[Tensor, "b h k"]]:
    """Tiles and orders, said for each example and head that is told apart."""
    had = order.queries.shape[:2]
    if had == (examples, heads):
        return tiles, order.queries, order.keys
    more = examples // had[0], heads // had[1]
    n = len(tiles.q)
    b, h = torch.meshgrid(torch.arange(more[0]), torch.arange(more[1]), indexing="ij")
    again = Pairs(*(axis.repeat(b.numel()) for axis in tiles))
    b, h = (axis.flatten().repeat_interleave(n) for axis in (b, h))
    again = again._replace(b=again.b + b, h=again.h + h)
    queries, keys = (each.expand(examples, heads, -1) for each in (order.queries, order.keys))
    return again, queries, keys


def _positions(
    tiles: Pairs, queries: Int[Tensor, "b h q"], keys: Int[Tensor, "b h k"], scope: Scope, size: int
) -> tuple[Pairs, Bool[Tensor, "u s s"]]:
    """The positions in some tiles, and which of them are there."""
    corner, within = Pairs(*(axis[:, None, None] for axis in tiles)), torch.arange(size)
    q, k = corner.q * size + within[:, None], corner.k * size + within
    inside = (q < scope.n_q) & (k < scope.n_k)
    query = queries[corner.b, corner.h, q.clamp(max=scope.n_q - 1)] + scope.q_start
    key = keys[corner.b, corner.h, k.clamp(max=scope.n_k - 1)]
    return corner._replace(q=query, k=key), inside


def _in_order(places: Int[Tensor, "b h n"]) -> bool:
    return bool((places == torch.arange(places.shape[-1])).all())

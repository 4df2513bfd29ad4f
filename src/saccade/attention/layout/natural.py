"""The part of a layout in the order of positions: windows, blocks, global columns and rows, whatever lies near."""

import torch
from torch import Tensor

from saccade.attention.layout.part import SIZES, Part, groups_of, masks_of, tiles_in
from saccade.attention.patterns import Pairs, Pattern, Scope
from saccade.shapes import Bool, Int

SAMPLED = 256
"""Query tiles from which the size of tiles is chosen."""


def natural(pattern: Pattern, scope: Scope, size: int | None = None) -> Part:
    """All of a pattern in one part. Query tiles begin at multiples of the size, as key tiles do."""
    size = tile_size(pattern, scope) if size is None else size
    queries = scope.query_tiles(size)
    tiles, (examples, heads) = tiles_touched(pattern, scope, size)
    rows, row_mask, is_row = _rows(pattern, scope, examples, heads)
    alike = torch.cat([_ends(scope, size, tiles), pattern.tile_keys(scope, size, tiles)], dim=1)
    tiles, numbers, table = masks_of(tiles, alike, size, lambda asked: _seen(pattern, scope, size, asked, is_row))
    return Part(
        n_k=scope.n_k,
        size=size,
        front=scope.q_start - queries.start * size,
        first_tile=queries.start,
        query_tiles=len(queries),
        examples=examples,
        heads=heads,
        groups=groups_of(tiles, numbers),
        table=table,
        rows=rows,
        row_mask=row_mask,
    )


def tile_size(pattern: Pattern, scope: Scope) -> int:
    """The largest that divides the blocks in which a pattern is drawn; without blocks, that of the least time."""
    if blocks := pattern.tile_sizes:
        return next((size for size in SIZES if all(block % size == 0 for block in blocks)), max(SIZES))
    return min(SIZES, key=lambda size: SIZES[size] * size * _touched_by_one(pattern, scope, size))


def _touched_by_one(pattern: Pattern, scope: Scope, size: int) -> float:
    """Tiles that a query tile touches, on an average of some query tiles."""
    queries = scope.query_tiles(size)
    rows = torch.arange(queries.start, queries.stop, max(1, len(queries) // SAMPLED))
    tiles = tiles_in(pattern.spans(scope, rows, size), 0, -(-scope.n_k // size))
    return len(tiles.q) / max(1, len(rows))


def tiles_touched(pattern: Pattern, scope: Scope, size: int) -> tuple[Pairs, tuple[int, int]]:
    """The tiles in which a pattern may allow a pair, and how many examples and heads are told apart."""
    queries = scope.query_tiles(size)
    spans = pattern.spans(scope, torch.arange(queries.start, queries.stop), size)
    examples, heads = spans.shape[:2]
    return tiles_in(spans, queries.start, -(-scope.n_k // size)), (examples, heads)


def _rows(
    pattern: Pattern, scope: Scope, examples: int, heads: int
) -> tuple[Int[Tensor, "b h r"], Bool[Tensor, "b h r k"] | None, Bool[Tensor, "b h q"]]:
    """The queries that are computed on their own: where they are, what they see, and which queries they are."""
    dense = pattern.dense_rows(scope)
    if dense is None:
        dense = torch.zeros(1, 1, scope.n_q, dtype=torch.bool)
    dense = dense.expand(examples, heads, -1)  # rows that are dense in all heads may still differ in what they see
    count = int(dense.sum(-1).max()) if dense.numel() else 0
    rows = dense.long().argsort(dim=-1, descending=True, stable=True)[..., :count]
    there = dense.gather(-1, rows)
    if not count:
        return rows, None, dense
    b, h = (torch.arange(n) for n in dense.shape[:2])
    at = Pairs(b[:, None, None, None], h[:, None, None], rows[..., None] + scope.q_start, torch.arange(scope.n_k))
    mask = pattern.sees(scope, at).expand(*rows.shape, scope.n_k) & there[..., None]
    return torch.where(there, rows, -1), None if bool(mask.all()) else mask, dense


def _ends(scope: Scope, size: int, tiles: Pairs) -> Int[Tensor, "t 3"]:
    """Which tiles reach over an end of the queries or of the keys."""
    begin = tiles.q * size < scope.q_start
    end = (tiles.q + 1) * size > scope.q_start + scope.n_q
    return torch.stack([begin, end, (tiles.k + 1) * size > scope.n_k], dim=1).long()


def _seen(
    pattern: Pattern, scope: Scope, size: int, tiles: Pairs, is_row: Bool[Tensor, "b h q"]
) -> Bool[Tensor, "u s s"]:
    """The masks of some tiles, without the queries that are computed on their own."""
    corner, within = Pairs(*(axis[:, None, None] for axis in tiles)), torch.arange(size)
    at = corner._replace(q=corner.q * size + within[:, None], k=corner.k * size + within)
    query = at.q - scope.q_start
    example, head = (axis.clamp(max=n - 1) for axis, n in zip(corner[:2], is_row.shape[:2], strict=True))
    row = is_row[example, head, query.clamp(0, max(scope.n_q - 1, 0))]
    inside = (query >= 0) & (query < scope.n_q) & (at.k < scope.n_k)
    return pattern.sees(scope, at) & inside & ~row

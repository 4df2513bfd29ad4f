"""Random blocks: each query block sees a few key blocks drawn once and for all.

Source: Big Bird (Zaheer et al. 2020). The draws come from a hash of (seed, head, query block), never from a
generator, so that training and evaluation, every worker and every call see the same ones.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from saccade.attention.patterns.pattern import Pairs, Pattern, Scope, on_cpu
from saccade.attention.seeds import hashed
from saccade.errors import must_be, whole_number
from saccade.shapes import Bool, Int


@dataclass(frozen=True, init=False, repr=False)
class Random(Pattern):
    """Each block of queries sees `blocks` different blocks of keys, or all there are where there are fewer.

    Args:
        blocks: how many key blocks are drawn for each query block.
        block: positions in a block, of queries and of keys.
        seed: what the draws are made from.
        excluding: a pattern; key blocks of which it may show a query block anything are not drawn for that block.
        per_head: whether each head has draws of its own.
        causal: draw among strictly earlier blocks, whatever the length (kept as `earlier`); else among all blocks
            of the example's live length.
    """

    blocks: int
    block: int
    seed: int
    excluding: Pattern | None
    per_head: bool
    earlier: bool

    def __init__(
        self,
        blocks: int,
        block: int = 64,
        seed: int = 0,
        excluding: Pattern | None = None,
        per_head: bool = False,
        causal: bool = False,
    ) -> None:
        for name, value, least in (("blocks", blocks, 1), ("block", block, 1), ("seed", seed, 0)):
            whole_number(name, value, least)
        for name, value in (("per_head", per_head), ("causal", causal)):
            if type(value) is not bool:
                raise ValueError(must_be(name, "True or False", value))
        if excluding is not None and not isinstance(excluding, Pattern):
            raise TypeError(must_be("excluding", "a pattern or None", excluding))
        values = (blocks, block, seed, excluding, per_head, causal)
        for name, value in zip(self.__dataclass_fields__, values, strict=True):
            object.__setattr__(self, name, value)

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """Whether the key's block was drawn for the query's block."""
        draws = _draws(self, scope).to(at.q.device)
        row = (at.q // self.block - scope.q_start // self.block).clamp(0, max(draws.shape[2] - 1, 0))
        example = at.b if draws.shape[0] > 1 else at.b.new_zeros(())  # no axis of its own: the mask is one for all
        head = at.h if draws.shape[1] > 1 else at.h.new_zeros(())
        seen = torch.zeros_like(at.q + at.k, dtype=torch.bool)
        for step in range(self.blocks):
            seen = seen | (draws[example, head, row, step] == at.k // self.block)
        return seen

    def spans(self, scope: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """One range for each drawn block, for every block that a query tile touches."""
        draws = _draws(self, scope)
        first = scope.q_start // self.block
        touched = 1 if self.block % size == 0 else (size - 1) // self.block + 2
        ranges = []
        for offset in range(touched):
            row = rows * size // self.block + offset
            inside = (row * self.block < (rows + 1) * size) & (row >= first) & (row - first < draws.shape[2])
            drawn = draws[:, :, (row - first).clamp(0, draws.shape[2] - 1)]
            hit = inside[:, None] & (drawn >= 0)
            low, high = drawn * self.block // size, ((drawn + 1) * self.block - 1) // size + 1
            ranges.append(torch.stack([low * hit, high * hit], dim=-1))
        return torch.cat(ranges, dim=3)

    def tile_keys(self, scope: Scope, size: int, tiles: Pairs) -> Int[Tensor, "t m"]:
        """Tiles within blocks are drawn or not; tiles across blocks are not known to be alike."""
        if self.block % size:
            return super().tile_keys(scope, size, tiles)
        corners = tiles._replace(q=tiles.q * size, k=tiles.k * size)
        return self.sees(scope, corners).long()[:, None]

    def prefix_form(self) -> "Random":
        """Drawn among earlier blocks, whatever the length."""
        excluding = None if self.excluding is None else self.excluding.causal()
        return Random(self.blocks, self.block, self.seed, excluding, self.per_head, causal=True)

    @on_cpu
    def reseeded(self, layer: int) -> "Random":
        """The draws of another layer; layer 0 has those of the seed itself."""
        seed = int(hashed(self.seed, 0, layer, 0)) if layer else self.seed
        excluding = None if self.excluding is None else self.excluding.reseeded(layer)
        return Random(self.blocks, self.block, seed, excluding, self.per_head, causal=self.earlier)

    @property
    def needs_length(self) -> bool:
        """Blocks are drawn among those of the live length, unless among earlier ones."""
        return not self.earlier or (self.excluding is not None and self.excluding.needs_length)

    @property
    def heads(self) -> int | None:
        """As the excluded pattern."""
        return None if self.excluding is None else self.excluding.heads

    @property
    def examples(self) -> int | None:
        """As the excluded pattern."""
        return None if self.excluding is None else self.excluding.examples

    @property
    def tile_sizes(self) -> tuple[int, ...]:
        """The block."""
        return (self.block,)

    def __repr__(self) -> str:
        options = [f"{self.blocks}"]
        options += [f"block={self.block}"] if self.block != 64 else []
        options += [f"seed={self.seed}"] if self.seed else []
        options += [f"excluding={self.excluding!r}"] if self.excluding is not None else []
        options += ["per_head=True"] if self.per_head else []
        options += ["causal=True"] if self.earlier else []
        return f"Random({', '.join(options)})"


@lru_cache(maxsize=64)
@on_cpu
def _draws(pattern: Random, scope: Scope) -> Int[Tensor, "b h r s"]:
    """The key blocks drawn for each query block, from the block of `q_start` on; -1 where there are too few."""
    first, end = scope.q_start // pattern.block, scope.query_tiles(pattern.block).stop
    rows = torch.arange(first, max(end, first + 1))
    lengths = torch.tensor(scope.lengths or (scope.n_k,))[:, None, None]
    available = rows.expand(1, 1, -1) if pattern.earlier else (-(-lengths // pattern.block)).expand(-1, 1, len(rows))
    whole_blocks = replace(scope, q_start=first * pattern.block, n_q=len(rows) * pattern.block)
    low, high = _excluded(pattern, whole_blocks, rows, available)
    free = available - (high - low).sum(-1)
    drawn = _ranks(pattern, rows, free, scope.heads if pattern.per_head else 1)
    for start, width in zip(low.unbind(-1), (high - low).unbind(-1), strict=True):
        drawn = torch.where(drawn >= start[..., None], drawn + width[..., None], drawn)
    return drawn


def _excluded(
    pattern: Random, scope: Scope, rows: Int[Tensor, " r"], available: Int[Tensor, "b h r"]
) -> tuple[Int[Tensor, "b2 h2 r s"], Int[Tensor, "b2 h2 r s"]]:
    """Ranges of blocks that may not be drawn: disjoint, in order, within what is available."""
    if pattern.excluding is None:
        none = available.new_zeros(*available.shape, 0)
        return none, none
    spans = pattern.excluding.spans(scope, rows, pattern.block)
    dense = pattern.excluding.dense_rows(scope)
    if dense is not None:
        query_block = torch.arange(scope.q_start, scope.q_start + scope.n_q) // pattern.block - rows[0]
        hit = torch.zeros(*dense.shape[:2], len(rows), dtype=torch.long).index_add(2, query_block, dense.long())
        everything = torch.stack([torch.zeros_like(hit), (hit > 0) * (1 << 40)], dim=-1)[..., None, :]
        lead = torch.broadcast_shapes(spans.shape[:2], everything.shape[:2])
        spans = torch.cat([s.expand(*lead, *s.shape[2:]) for s in (spans, everything)], dim=3)
    spans = torch.minimum(spans.clamp(min=0), available[..., None, None])
    order = spans[..., 0].argsort(dim=-1, stable=True)
    low, high = (spans[..., side].gather(-1, order) for side in (0, 1))
    reached = torch.cat([torch.zeros_like(low[..., :1]), high.cummax(-1).values[..., :-1]], dim=-1)
    low = torch.maximum(low, reached)
    return low, torch.maximum(low, high)


def _ranks(pattern: Random, rows: Int[Tensor, " r"], free: Int[Tensor, "b h r"], heads: int) -> Int[Tensor, "b h2 r s"]:
    """Different numbers below `free` for each row, by Floyd's algorithm; all of them where there are too few."""
    head = torch.arange(heads)[:, None]
    ranks = torch.full((*torch.broadcast_shapes(free.shape, (1, heads, 1)), pattern.blocks), -1)
    for step in range(pattern.blocks):
        highest = free - pattern.blocks + step
        drawn = hashed(pattern.seed, head, rows, step) % (highest + 1).clamp(min=1)
        repeated = (ranks == drawn[..., None]).any(-1)
        every = torch.where(free > step, step, -1)
        ranks[..., step] = torch.where(free > pattern.blocks, torch.where(repeated, highest, drawn), every)
    return ranks

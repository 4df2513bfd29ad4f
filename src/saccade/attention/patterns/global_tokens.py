"""Global tokens: a few positions that everyone sees and that see everyone.

Sources: Longformer (Beltagy et al. 2020); Big Bird's ITC (Zaheer et al. 2020); columns alone are the attention
sinks of StreamingLLM (Xiao et al. 2023).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saccade.attention.patterns.pattern import Pairs, Pattern, Scope
from saccade.errors import must_be, whole_number
from saccade.shapes import Bool, Int


@dataclass(frozen=True, repr=False)
class Global(Pattern):
    """Chosen positions are seen by every query (columns) and see every key (rows).

    Attributes:
        first: how many positions at the start.
        last: how many at the end of each example's live length. Dropped in the causal form: while a sequence is
            being written nobody knows which tokens will be its last.
        positions: further positions, sorted; those past the end are ignored.
        rows: whether the chosen positions see every key.
        columns: whether every query sees the chosen positions; columns alone are attention sinks.
    """

    first: int = 0
    last: int = 0
    positions: tuple[int, ...] | None = None
    rows: bool = True
    columns: bool = True

    def __post_init__(self) -> None:
        """Refuse what is no choice of positions."""
        for name in ("first", "last"):
            whole_number(name, getattr(self, name), 0)
        if self.positions is not None:
            object.__setattr__(self, "positions", _positions(self.positions))
        for name in ("rows", "columns"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(must_be(name, "True or False", getattr(self, name)))
        if not (self.rows or self.columns):
            raise ValueError("rows or columns must be True, got False for both")

    def _chosen(self, scope: Scope, b: Int[Tensor, "..."], position: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Whether a position is a global one."""
        chosen = position < self.first
        if self.last:
            length = scope.length(b)
            chosen = chosen | ((position >= length - self.last) & (position < length))
        if self.positions:
            listed = torch.tensor(self.positions, device=position.device)
            chosen = chosen | torch.isin(position, listed)
        return chosen

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """Whether the key is global (columns) or the query is (rows)."""
        seen = torch.zeros_like(at.q + at.k, dtype=torch.bool)
        if self.columns:
            seen = seen | self._chosen(scope, at.b, at.k)
        if self.rows:
            seen = seen | self._chosen(scope, at.b, at.q)
        return seen

    def spans(self, scope: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """The tiles of the global columns, the same for every query tile."""
        ends = torch.tensor(scope.lengths or (scope.n_k,))
        spans = [torch.zeros(len(ends), 2, dtype=torch.long)]
        if self.columns:
            spans.append(torch.stack([torch.zeros_like(ends), (-(-self.first // size)) + 0 * ends], dim=-1))
            if self.last:
                spans.append(torch.stack([(ends - self.last).clamp(min=0) // size, -(-ends // size)], dim=-1))
            tiles = sorted({position // size for position in self.positions or ()})
            spans += [torch.tensor([tile, tile + 1]).expand(len(ends), 2) for tile in tiles]
        return torch.stack(spans, dim=1)[:, None, None].expand(-1, 1, len(rows), -1, -1)

    def tile_keys(self, scope: Scope, size: int, tiles: Pairs) -> Int[Tensor, "t m"]:
        """Tiles without global positions are alike, as are those of global columns only; others differ."""
        b = torch.arange(scope.examples)[:, None]
        position = torch.arange((scope.end // size + 2) * size)
        chosen = self._chosen(scope, b, position).expand(len(b), -1).unflatten(1, (-1, size)).sum(2)
        columns = chosen[tiles.b, tiles.k.clamp(max=chosen.shape[1] - 1)] * self.columns
        rows = (chosen[tiles.b, tiles.q.clamp(max=chosen.shape[1] - 1)] > 0) & self.rows
        mixed = (columns > 0) & (columns < size)
        column_key = torch.where(mixed, 2 + tiles.b * (scope.n_k + 1) + tiles.k, (columns > 0).long())
        row_key = torch.where(rows, 1 + tiles.b * (scope.n_q + scope.q_start + 1) + tiles.q, 0)
        return torch.stack([column_key, row_key], dim=1)

    def dense_rows(self, scope: Scope) -> Bool[Tensor, "b h q"] | None:
        """The global queries themselves."""
        if not self.rows:
            return None
        b = torch.arange(len(scope.lengths or (0,)))[:, None, None]
        q = torch.arange(scope.q_start, scope.q_start + scope.n_q)
        return self._chosen(scope, b, q).expand(len(b), 1, scope.n_q)

    def prefix_form(self) -> "Global":
        """Without the last positions, which are not known before the end."""
        return replace(self, last=0)

    @property
    def needs_length(self) -> bool:
        """Only the last positions depend on where the end is."""
        return self.last > 0

    def __repr__(self) -> str:
        options = [f"{self.first}"] if self.first else []
        options += [f"last={self.last}"] if self.last else []
        options += [f"positions={list(self.positions)}"] if self.positions else []
        options += [f"{name}=False" for name in ("rows", "columns") if not getattr(self, name)]
        return f"Global({', '.join(options)})"


def _positions(value: object) -> tuple[int, ...] | None:
    """Check listed positions and bring them into their one order."""
    if not isinstance(value, list | tuple) or not all(type(item) is int and item >= 0 for item in value):
        raise ValueError(must_be("positions", "a list of whole numbers, at least 0", value))
    return tuple(sorted(set(value))) or None

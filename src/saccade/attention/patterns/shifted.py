"""A pattern moved behind extra tokens, which other patterns, such as `Global`, then speak of."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from saccade.attention.patterns.pattern import Pairs, Pattern, Scope
from saccade.errors import must_be, whole_number
from saccade.shapes import Bool, Int


@dataclass(frozen=True, repr=False)
class Shifted(Pattern):
    """Position `n + i` sees what `pattern` shows position i; the first `n` positions see nothing and nobody sees them.

    Attributes:
        pattern: what is moved.
        n: by how many positions.
    """

    pattern: Pattern
    n: int

    def __post_init__(self) -> None:
        """Refuse what can't be moved."""
        if not isinstance(self.pattern, Pattern):
            raise TypeError(must_be("pattern", "a pattern", self.pattern))
        whole_number("n", self.n, 0)

    def inner(self, scope: Scope) -> Scope:
        """The lengths as the pattern inside knows them."""
        extra = max(0, min(self.n - scope.q_start, scope.n_q))
        return replace(
            scope,
            n_q=scope.n_q - extra,
            n_k=max(0, scope.n_k - self.n),
            q_start=max(0, scope.q_start - self.n),
            lengths=None if scope.lengths is None else tuple(max(0, length - self.n) for length in scope.lengths),
        )

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """Whether the pattern inside allows the pair, counted from behind the extra tokens."""
        inside = (at.q >= self.n) & (at.k >= self.n)
        moved = at._replace(q=(at.q - self.n).clamp(min=0), k=(at.k - self.n).clamp(min=0))
        return inside & self.pattern.sees(self.inner(scope), moved)

    def spans(self, scope: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """The ranges of the tiles inside that a tile touches, moved."""
        inner, shift = self.inner(scope), self.n // size
        touched = (0,) if self.n % size == 0 else (0, 1)
        spans = torch.cat([self._of(inner, rows - shift - step, size) for step in touched], dim=3)
        low, high = spans.unbind(-1)
        moved = torch.stack([(low * size + self.n) // size, -(-(high * size + self.n) // size)], dim=-1)
        return torch.where((low < high)[..., None], moved, 0)

    def _of(self, inner: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """The ranges inside, none for tiles of extra tokens only."""
        return self.pattern.spans(inner, rows.clamp(min=0), size) * (rows >= 0)[:, None, None]

    def tile_keys(self, scope: Scope, size: int, tiles: Pairs) -> Int[Tensor, "t m"]:
        """Those of the pattern inside, where its tiles are ours or only distances matter; and the extra tokens."""
        if self.n % size and not self.pattern.by_distance:
            return super().tile_keys(scope, size, tiles)
        shift = self.n // size
        inside = tiles._replace(q=(tiles.q - shift).clamp(min=0), k=(tiles.k - shift).clamp(min=0))
        extra = [torch.where(side * size < self.n, side, shift + 1) for side in (tiles.q, tiles.k)]
        return torch.cat([self.pattern.tile_keys(self.inner(scope), size, inside), torch.stack(extra, dim=1)], dim=1)

    def dense_rows(self, scope: Scope) -> Bool[Tensor, "b h q"] | None:
        """Those of the pattern inside."""
        inner = self.inner(scope)
        rows = self.pattern.dense_rows(inner)
        return None if rows is None else pad(rows, (scope.n_q - inner.n_q, 0))

    def labels(
        self, scope: Scope, b: Int[Tensor, "..."], h: Int[Tensor, "..."], position: Int[Tensor, "..."]
    ) -> Int[Tensor, "..."]:
        """Those of the pattern inside."""
        labels = self.pattern.labels(self.inner(scope), b, h, (position - self.n).clamp(min=0))
        return torch.where(position < self.n, -1, labels)

    @property
    def labelled(self) -> bool:
        """Whether the pattern inside is."""
        return self.pattern.labelled

    def listed(self, scope: Scope) -> Pairs | None:
        """Those of the pattern inside, moved."""
        pairs = self.pattern.listed(self.inner(scope))
        return None if pairs is None else pairs._replace(q=pairs.q + self.n, k=pairs.k + self.n)

    def reach(self, scope: Scope) -> tuple[int | float, int | float]:
        """As far as the pattern inside."""
        return self.pattern.reach(self.inner(scope))

    def parts(self) -> tuple[Pattern, ...]:
        """The parts of the pattern inside, moved."""
        return tuple(Shifted(part, self.n) for part in self.pattern.parts())

    def prefix_form(self) -> "Shifted":
        """The prefix form of the pattern inside, moved."""
        return replace(self, pattern=self.pattern.prefix_form())

    def reseeded(self, layer: int) -> "Shifted":
        """The pattern inside reseeded."""
        return replace(self, pattern=self.pattern.reseeded(layer))

    @property
    def needs_length(self) -> bool:
        """Whether the pattern inside does."""
        return self.pattern.needs_length

    @property
    def tile_sizes(self) -> tuple[int, ...]:
        """Those of the pattern inside, as far as they still are where tiles are."""
        return tuple(math.gcd(size, self.n) for size in self.pattern.tile_sizes)

    @property
    def has_lists(self) -> bool:
        """Whether the pattern inside is given so."""
        return self.pattern.has_lists

    @property
    def heads(self) -> int | None:
        """As the pattern inside."""
        return self.pattern.heads

    @property
    def examples(self) -> int | None:
        """As the pattern inside."""
        return self.pattern.examples

    def __repr__(self) -> str:
        return f"Shifted({self.pattern!r}, {self.n})"

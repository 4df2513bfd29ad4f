"""Full attention, none, and windows: `Full`, `Nothing`, `Local`, and `Causal`, the window that reaches back for ever.

Sources: truncated attention in Longformer (Beltagy et al. 2020); block windows in Big Bird (Zaheer et al. 2020).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from saccade.attention.patterns.pattern import Pairs, Pattern, Scope
from saccade.errors import must_be, whole_number
from saccade.shapes import Bool, Int


@dataclass(frozen=True)
class Full(Pattern):
    """Every query sees every key."""

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """Always."""
        return torch.ones_like(at.q + at.k, dtype=torch.bool)

    def tile_keys(self, scope: Scope, size: int, tiles: Pairs) -> Int[Tensor, "t m"]:
        """All tiles are alike."""
        return torch.zeros_like(tiles.q)[:, None]

    @property
    def by_distance(self) -> bool:
        """It does not even depend on that."""
        return True

    def causal(self) -> "Local":
        """`Causal()` itself, for which there is a fused kernel."""
        return Causal()


@dataclass(frozen=True)
class Nothing(Pattern):
    """No query sees any key: what a head has that takes no part in a union."""

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """Never."""
        return torch.zeros_like(at.q + at.k, dtype=torch.bool)

    def spans(self, scope: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """No key tile."""
        return torch.zeros(1, 1, len(rows), 0, 2, dtype=torch.long)

    def tile_keys(self, scope: Scope, size: int, tiles: Pairs) -> Int[Tensor, "t m"]:
        """All tiles are alike."""
        return torch.zeros_like(tiles.q)[:, None]

    def reach(self, scope: Scope) -> tuple[int | float, int | float]:
        """Nowhere."""
        return 0, 0


@dataclass(frozen=True, repr=False)
class Local(Pattern):
    """A window: query i sees keys `i - left .. i + right`, itself included and not counted.

    Attributes:
        left: keys before the query, a whole number or `math.inf`.
        right: keys after the query; `left` if not given.
        block: if given, `left` and `right` count whole blocks of this many positions instead: a query in block p
            sees all of the blocks `p - left .. p + right`.
    """

    left: int | float
    right: int | float | None = None
    block: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no window, and fill in the symmetric one."""
        if self.right is None:
            object.__setattr__(self, "right", self.left)
        for name in ("left", "right"):
            object.__setattr__(self, name, _reach(name, getattr(self, name)))
        if self.block is not None:
            whole_number("block", self.block)

    @property
    def window(self) -> tuple[int | float, int | float]:
        """`(left, right)`, both known."""
        assert self.right is not None
        return self.left, self.right

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """Whether the key (or its block) lies in the window of the query (or of its block)."""
        left, right = self.window
        unit = self.block or 1
        ahead = at.k // unit - at.q // unit
        return (ahead >= -left) & (ahead <= right)

    def spans(self, scope: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """One range: from the tile of the first query's leftmost key to that of the last query's rightmost."""
        left, right = self.window
        unit, last = self.block or 1, (scope.n_k - 1) // size
        first_query, last_query = rows * size // unit, (rows * size + size - 1) // unit
        low = torch.zeros_like(rows) if left == math.inf else (first_query - int(left)) * unit // size
        high = torch.full_like(rows, last) if right == math.inf else ((last_query + int(right) + 1) * unit - 1) // size
        return torch.stack([low, high + 1], dim=-1)[None, None, :, None]

    def tile_keys(self, scope: Scope, size: int, tiles: Pairs) -> Int[Tensor, "t m"]:
        """Only the distance between the tiles matters, and only near the ends of the window."""
        if (self.block or 1) > size or size % (self.block or 1):
            return super().tile_keys(scope, size, tiles)
        left, right = (reach * (self.block or 1) for reach in self.window)
        nearest = -1 if left == math.inf else -(int(left) // size) - 2
        farthest = 1 if right == math.inf else int(right) // size + 2
        return (tiles.k - tiles.q).clamp(nearest, farthest)[:, None]

    def reach(self, scope: Scope) -> tuple[int | float, int | float]:
        """The window; counted in blocks, from the far end of the query's own block."""
        left, right = self.window
        return (left, right) if self.block is None else ((left + 1) * self.block - 1, (right + 1) * self.block - 1)

    @property
    def tile_sizes(self) -> tuple[int, ...]:
        """The block, if the window is counted in blocks."""
        return () if self.block is None else (self.block,)

    @property
    def by_distance(self) -> bool:
        """Unless blocks have their places."""
        return self.block is None

    def __repr__(self) -> str:
        left, right = self.window
        if (left, right, self.block) == (math.inf, 0, None):
            return "Causal()"
        window = f"{left}" if left == right else f"{left}, {right}"
        return f"Local({window})" if self.block is None else f"Local({window}, block={self.block})"


def Causal() -> Local:  # noqa: N802 - reads as a pattern, and is one
    """Query i sees keys `0 .. i`: the window `Local(inf, 0)`, and equal to it."""
    return Local(math.inf, 0)


def _reach(name: str, value: object) -> int | float:
    """Check one side of a window."""
    if value == math.inf and isinstance(value, float):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(must_be(name, "a whole number, at least 0, or inf", value))
    return value

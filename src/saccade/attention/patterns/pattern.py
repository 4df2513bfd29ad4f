"""What a pattern is: an immutable value that says who may look at whom, closed under `|` and `&`.

A pattern answers one question, `sees`: may query position i look at key position j? That is its definition, and
the dense mask is that question asked n * n times. Three more answers let a layout be built without asking n * n
times: `spans` (which key tiles a query tile may look into), `tile_keys` (which tiles have the same mask) and
`dense_rows` (queries that look nearly everywhere and are better served by a dense call of their own). A *tile*
is `size` consecutive positions, aligned to a multiple of `size`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from saccade.errors import must_be
from saccade.shapes import Bool, Int


@dataclass(frozen=True)
class Scope:
    """The lengths a pattern is bound to.

    Attributes:
        n_q: number of queries.
        n_k: number of keys.
        q_start: the key position at which the first query stands.
        lengths: live length of each example, or `None` where all are `n_k`.
        heads: number of heads, which matters only to patterns that differ between heads.
    """

    n_q: int
    n_k: int
    q_start: int = 0
    lengths: tuple[int, ...] | None = None
    heads: int = 1

    def __post_init__(self) -> None:
        """Refuse negative lengths."""
        for name in ("n_q", "n_k", "q_start"):
            if getattr(self, name) < 0:
                raise ValueError(must_be(name, "at least 0", getattr(self, name)))

    def query_tiles(self, size: int) -> range:
        """Numbers of the tiles in which the queries lie."""
        first = self.q_start // size
        return range(first, -(-(self.q_start + self.n_q) // size) if self.n_q else first)

    def length(self, b: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
        """Live length of the examples `b`."""
        if self.lengths is None:
            return torch.full_like(b, self.n_k)
        return torch.tensor(self.lengths, device=b.device)[b]


class Pairs(NamedTuple):
    """Pairs of a query and a key position (or of their tiles), in an example and a head. The four broadcast."""

    b: Int[Tensor, "..."]
    h: Int[Tensor, "..."]
    q: Int[Tensor, "..."]
    k: Int[Tensor, "..."]


class Pattern(ABC):
    """Who may look at whom. Immutable; `==` and `hash` compare structure; `repr` is an expression that rebuilds it.

    All positions are absolute: query i of a call stands at key position `q_start + i`.
    """

    @abstractmethod
    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """May the queries look at the keys? Positions are absolute."""

    @abstractmethod
    def spans(self, scope: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """For each query tile, half-open ranges of key tiles that hold every key its queries see.

        A superset is allowed, as is overlap; queries named by `dense_rows` may be left out. `b` and `h` are 1
        where the pattern does not depend on them.
        """

    def tile_keys(self, scope: Scope, size: int, tiles: Pairs) -> Int[Tensor, "t m"]:
        """Numbers for each pair of a query tile and a key tile: where they are equal, the tiles' masks are equal.

        The default says that no two tiles are known to be alike, which is always right and never fast.
        """
        return torch.arange(len(tiles.q))[:, None]

    def dense_rows(self, scope: Scope) -> Bool[Tensor, "b h q"] | None:
        """Queries that look nearly everywhere, for which a tile list would visit whole rows of tiles."""
        return None

    def prefix_form(self) -> "Pattern":
        """The same pattern with everything that depends on the length replaced by what depends on the prefix."""
        return self

    def reseeded(self, layer: int) -> "Pattern":
        """The same pattern with its random draws, if any, made for another layer."""
        return self

    @property
    def needs_length(self) -> bool:
        """Whether `sees` depends on the live length of the example."""
        return False

    @property
    def tile_sizes(self) -> tuple[int, ...]:
        """Sizes of the blocks in which the pattern itself is drawn; tiles that divide them are never partial."""
        return ()

    def causal(self) -> "Pattern":
        """The causal form: no query sees a later key, and nothing depends on how long the sequence will be."""
        from saccade.attention.patterns.local import Causal  # a pattern itself, so it can't be imported above

        return self.prefix_form() & Causal()

    def bind(
        self, n_q: int, n_k: int, q_start: int = 0, *, lengths: tuple[int, ...] | None = None, heads: int = 1
    ) -> "Bound":
        """The pattern for given lengths.

        Args:
            n_q: number of queries.
            n_k: number of keys.
            q_start: the key position of the first query.
            lengths: live length of each example, where they differ from `n_k`.
            heads: number of heads, for patterns that differ between them.
        """
        lengths = lengths if self.needs_length and lengths else None
        return Bound(self, Scope(n_q, n_k, q_start, lengths, heads))

    def dense(self, n_q: int, n_k: int, q_start: int = 0, *, heads: int = 1) -> Bool[Tensor, "..."]:
        """The whole mask, True where a query may look: `[q k]`, or `[1 h q k]` where heads differ."""
        return self.bind(n_q, n_k, q_start, heads=heads).dense()

    def __or__(self, other: "Pattern") -> "Pattern":
        return _combine(Union, (self, other))

    def __and__(self, other: "Pattern") -> "Pattern":
        return _combine(Intersection, (self, other))


@dataclass(frozen=True)
class Bound:
    """A pattern with the lengths it is used at.

    Attributes:
        pattern: who may look at whom.
        scope: the lengths.
    """

    pattern: Pattern
    scope: Scope

    def allows(
        self, b: Int[Tensor, "..."], h: Int[Tensor, "..."], q: Int[Tensor, "..."], k: Int[Tensor, "..."]
    ) -> Bool[Tensor, "..."]:
        """May query number `q` look at key `k`? Queries count from 0, as in a FlexAttention `mask_mod`."""
        return self.pattern.sees(self.scope, Pairs(b, h, q + self.scope.q_start, k))

    def dense(self, device: torch.device | str = "cpu") -> Bool[Tensor, "..."]:
        """The whole mask: `[q k]`, or `[b h q k]` (each of b, h 1 where it does not matter). The definition."""
        scope = self.scope
        b = torch.arange(len(scope.lengths or (0,)), device=device)[:, None, None, None]
        h = torch.arange(scope.heads, device=device)[:, None, None]
        q = torch.arange(scope.n_q, device=device)[:, None]
        k = torch.arange(scope.n_k, device=device)
        mask = self.allows(b, h, q, k)
        mask = mask.expand(*(1,) * (4 - mask.ndim), *mask.shape[:-2], scope.n_q, scope.n_k)
        return mask[0, 0] if mask.shape[:2] == (1, 1) else mask


@dataclass(frozen=True, eq=False, repr=False)
class _Combination(Pattern):
    """Several patterns taken together; flat, without repetition, equal in any order."""

    symbol: ClassVar[str]
    parts: tuple[Pattern, ...]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and frozenset(self.parts) == frozenset(other.parts)

    def __hash__(self) -> int:
        return hash((self.symbol, frozenset(self.parts)))

    def __repr__(self) -> str:
        texts = (f"({part!r})" if isinstance(part, _Combination) else repr(part) for part in self.parts)
        return f" {self.symbol} ".join(texts)

    def tile_keys(self, scope: Scope, size: int, tiles: Pairs) -> Int[Tensor, "t m"]:
        """The keys of all parts side by side."""
        return torch.cat([part.tile_keys(scope, size, tiles) for part in self.parts], dim=1)

    def dense_rows(self, scope: Scope) -> Bool[Tensor, "b h q"] | None:
        """Rows that any part left out of its spans; the dense call asks `sees` itself, so it is exact."""
        rows = [r for part in self.parts if (r := part.dense_rows(scope)) is not None]
        return _any(rows) if rows else None

    def prefix_form(self) -> Pattern:
        """The prefix forms of the parts, combined."""
        return _combine(type(self), [part.prefix_form() for part in self.parts])

    def reseeded(self, layer: int) -> Pattern:
        """The reseeded parts, combined."""
        return _combine(type(self), [part.reseeded(layer) for part in self.parts])

    @property
    def needs_length(self) -> bool:
        """Whether any part does."""
        return any(part.needs_length for part in self.parts)

    @property
    def tile_sizes(self) -> tuple[int, ...]:
        """The sizes of all parts."""
        return tuple(size for part in self.parts for size in part.tile_sizes)


class Union(_Combination):
    """`A | B`: pairs that any part allows. A pair counts once however many parts allow it."""

    symbol = "|"

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """Whether any part allows the pair."""
        return _any([part.sees(scope, at) for part in self.parts])

    def spans(self, scope: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """The ranges of all parts, one after the other."""
        spans = [part.spans(scope, rows, size) for part in self.parts]
        lead = torch.broadcast_shapes(*(s.shape[:2] for s in spans))
        return torch.cat([s.expand(*lead, *s.shape[2:]) for s in spans], dim=3)


class Intersection(_Combination):
    """`A & B`: pairs that every part allows."""

    symbol = "&"

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """Whether all parts allow the pair."""
        seen = self.parts[0].sees(scope, at)
        for part in self.parts[1:]:
            seen = seen & part.sees(scope, at)
        return seen

    def spans(self, scope: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """Every range of one part cut with every range of the next."""
        spans = self.parts[0].spans(scope, rows, size)
        for part in self.parts[1:]:
            mine, theirs = spans[..., :, None, :], part.spans(scope, rows, size)[..., None, :, :]
            low = torch.maximum(mine[..., 0], theirs[..., 0])
            high = torch.minimum(mine[..., 1], theirs[..., 1])
            spans = torch.stack([low, high], dim=-1).flatten(3, 4)
        return spans


def _combine(kind: type[_Combination], sides: Sequence[object]) -> Pattern:
    """Flatten nested combinations of one kind and drop repeated parts."""
    parts: dict[Pattern, None] = {}
    for side in sides:
        if not isinstance(side, Pattern):
            raise TypeError(must_be(f"each side of {kind.symbol}", "a pattern", side))
        parts |= dict.fromkeys(side.parts if isinstance(side, kind) else (side,))
    return kind(tuple(parts)) if len(parts) > 1 else next(iter(parts))


def _any(masks: list[Tensor]) -> Tensor:
    seen = masks[0]
    for mask in masks[1:]:
        seen = seen | mask
    return seen

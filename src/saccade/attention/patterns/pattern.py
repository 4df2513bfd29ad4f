"""What a pattern is: an immutable value that says who may look at whom, closed under `|` and `&`.

A pattern answers one question, `sees`: may query position i look at key position j? That is its definition, and
the dense mask is that question asked n * n times. More answers let a layout be built without asking n * n times, all
with defaults that are right and slow: `spans` (which key tiles a query tile may look into), `tile_keys` (which tiles
have the same mask), `dense_rows` (queries that look nearly everywhere and are better served by a dense call of their
own), `labels` (an order in which far keys are neighbours), `reach` (how far anyone looks) and `parts` (what a
union is made of). A *tile* is `size` consecutive positions, aligned to a multiple of `size`.
"""

import math
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
        examples: number of examples that are told apart, 1 where all are alike.
    """

    n_q: int
    n_k: int
    q_start: int = 0
    lengths: tuple[int, ...] | None = None
    heads: int = 1
    examples: int = 1

    def __post_init__(self) -> None:
        """Refuse negative lengths."""
        for name in ("n_q", "n_k", "q_start"):
            if getattr(self, name) < 0:
                raise ValueError(must_be(name, "at least 0", getattr(self, name)))
        if self.lengths is not None:
            object.__setattr__(self, "examples", len(self.lengths))

    @property
    def end(self) -> int:
        """One past the last position of a query or a key."""
        return max(self.n_k, self.q_start + self.n_q)

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

    def spans(self, scope: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """For each query tile, half-open ranges of key tiles that hold every key its queries see.

        A superset is allowed, as is overlap; queries named by `dense_rows` may be left out. `b` and `h` are 1
        where the pattern does not depend on them. The default names all tiles.
        """
        return torch.tensor([0, -(-scope.n_k // size)]).expand(1, 1, len(rows), 1, 2)

    def tile_keys(self, scope: Scope, size: int, tiles: Pairs) -> Int[Tensor, "t m"]:
        """Numbers for each pair of a query tile and a key tile: where they are equal, the tiles' masks are equal.

        The default says that no two tiles are known to be alike, which is always right and never fast.
        """
        return torch.arange(len(tiles.q))[:, None]

    def dense_rows(self, scope: Scope) -> Bool[Tensor, "b h q"] | None:
        """Queries that look nearly everywhere, for which a tile list would visit whole rows of tiles."""
        return None

    def labels(
        self, scope: Scope, b: Int[Tensor, "..."], h: Int[Tensor, "..."], position: Int[Tensor, "..."]
    ) -> Int[Tensor, "..."]:
        """A number for each position such that queries see only keys of their own number; for `labelled` patterns.

        Sorted by it, what belongs together lies together. -1 for positions that see nothing and that nobody sees.
        """
        raise NotImplementedError(f"{self!r} has no labels")

    @property
    def labelled(self) -> bool:
        """Whether it has `labels`."""
        return False

    def reach(self, scope: Scope) -> tuple[int | float, int | float]:
        """How many positions to the left and to the right a query looks at most."""
        return math.inf, math.inf

    def parts(self) -> "tuple[Pattern, ...]":
        """Patterns whose union this is, cut so that what has `labels` stands apart."""
        return (self,)

    def listed(self, scope: Scope) -> Pairs | None:
        """The pairs one by one, each once, where that is how the pattern was given."""
        return None

    @property
    def has_lists(self) -> bool:
        """Whether it, or a member of it, is given pair by pair."""
        return False

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

    @property
    def by_distance(self) -> bool:
        """Whether only the distance of query and key matters."""
        return False

    @property
    def heads(self) -> int | None:
        """The number of heads it is made for; `None` for any."""
        return None

    @property
    def examples(self) -> int | None:
        """The number of examples it is made for; `None` for any."""
        return None

    def shifted(self, n: int) -> "Pattern":
        """The same pattern behind `n` extra tokens, such as global ones, about which it says nothing."""
        from saccade.attention.patterns.shifted import Shifted  # a pattern itself, so it can't be imported above

        return Shifted(self, n)

    def causal(self) -> "Pattern":
        """The causal form: no query sees a later key, and nothing depends on how long the sequence will be."""
        from saccade.attention.patterns.local import Causal  # a pattern itself, so it can't be imported above

        return self.prefix_form() & Causal()

    def bind(
        self, n_q: int, n_k: int, q_start: int = 0, *, lengths: tuple[int, ...] | None = None, heads: int | None = None
    ) -> "Bound":
        """The pattern for given lengths.

        Args:
            n_q: number of queries.
            n_k: number of keys.
            q_start: the key position of the first query.
            lengths: live length of each example, where they differ from `n_k`.
            heads: number of heads, for patterns that differ between them; as many as it is made for, if not given.

        Raises:
            ValueError: a negative length, or a pattern made for another number of heads, examples or positions.
        """
        heads = heads or self.heads or 1
        if self.heads not in (None, heads):
            raise ValueError(must_be("heads", f"{self.heads}, one for each pattern of {self!r}", heads))
        lengths = lengths if self.needs_length and lengths else None
        if lengths and self.examples not in (None, len(lengths)):
            raise ValueError(must_be("batch size", f"{self.examples}, as in {self!r}", len(lengths)))
        return Bound(self, Scope(n_q, n_k, q_start, lengths, heads, self.examples or 1))

    def dense(self, n_q: int, n_k: int, q_start: int = 0, *, heads: int | None = None) -> Bool[Tensor, "..."]:
        """The whole mask, True where a query may look: `[q k]`, or `[b h q k]` where examples or heads differ."""
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

    @property
    def told_apart(self) -> tuple[int, int]:
        """How many examples and heads differ in what they see; 1 where all are alike."""
        examples, heads = self.pattern.spans(self.scope, torch.zeros(1, dtype=torch.long), 64).shape[:2]
        return examples, heads

    def dense(self, device: torch.device | str = "cpu") -> Bool[Tensor, "..."]:
        """The whole mask: `[q k]`, or `[b h q k]` (each of b, h 1 where it does not matter). The definition."""
        scope, (examples, heads) = self.scope, self.told_apart
        b = torch.arange(examples, device=device)[:, None, None, None]
        h = torch.arange(heads, device=device)[:, None, None]
        q = torch.arange(scope.n_q, device=device)[:, None]
        k = torch.arange(scope.n_k, device=device)
        mask = self.allows(b, h, q, k)
        mask = mask.expand(*(1,) * (4 - mask.ndim), *mask.shape[:-2], scope.n_q, scope.n_k)
        return mask[0, 0] if mask.shape[:2] == (1, 1) else mask


@dataclass(frozen=True, eq=False, repr=False)
class _Combination(Pattern):
    """Several patterns taken together; flat, without repetition, equal in any order."""

    symbol: ClassVar[str]
    members: tuple[Pattern, ...]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and frozenset(self.members) == frozenset(other.members)

    def __hash__(self) -> int:
        return hash((self.symbol, frozenset(self.members)))

    def __repr__(self) -> str:
        texts = (f"({member!r})" if isinstance(member, _Combination) else repr(member) for member in self.members)
        return f" {self.symbol} ".join(texts)

    def tile_keys(self, scope: Scope, size: int, tiles: Pairs) -> Int[Tensor, "t m"]:
        """The keys of all members side by side."""
        return torch.cat([member.tile_keys(scope, size, tiles) for member in self.members], dim=1)

    def dense_rows(self, scope: Scope) -> Bool[Tensor, "b h q"] | None:
        """Rows that any member left out of its spans; the dense call asks `sees` itself, so it is exact."""
        rows = [r for member in self.members if (r := member.dense_rows(scope)) is not None]
        return _any(rows) if rows else None

    def prefix_form(self) -> Pattern:
        """The prefix forms of the members, combined."""
        return _combine(type(self), [member.prefix_form() for member in self.members])

    def reseeded(self, layer: int) -> Pattern:
        """The reseeded members, combined."""
        return _combine(type(self), [member.reseeded(layer) for member in self.members])

    @property
    def needs_length(self) -> bool:
        """Whether any member does."""
        return any(member.needs_length for member in self.members)

    @property
    def tile_sizes(self) -> tuple[int, ...]:
        """The sizes of all members."""
        return tuple(size for member in self.members for size in member.tile_sizes)

    @property
    def by_distance(self) -> bool:
        """Whether this holds for all members."""
        return all(member.by_distance for member in self.members)

    @property
    def has_lists(self) -> bool:
        """Whether any member is given so."""
        return any(member.has_lists for member in self.members)

    @property
    def heads(self) -> int | None:
        """The one number that members are made for."""
        return one_number("heads", self, [member.heads for member in self.members])

    @property
    def examples(self) -> int | None:
        """The one number that members are made for."""
        return one_number("examples", self, [member.examples for member in self.members])


class Union(_Combination):
    """`A | B`: pairs that any member allows. A pair counts once however many members allow it."""

    symbol = "|"

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """Whether any member allows the pair."""
        return _any([member.sees(scope, at) for member in self.members])

    def spans(self, scope: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """The ranges of all members, one after the other."""
        spans = [member.spans(scope, rows, size) for member in self.members]
        lead = torch.broadcast_shapes(*(s.shape[:2] for s in spans))
        return torch.cat([s.expand(*lead, *s.shape[2:]) for s in spans], dim=3)

    def reach(self, scope: Scope) -> tuple[int | float, int | float]:
        """As far as the farthest member."""
        left, right = zip(*(member.reach(scope) for member in self.members), strict=True)
        return max(left), max(right)

    def parts(self) -> tuple[Pattern, ...]:
        """The parts of all members."""
        return tuple(part for member in self.members for part in member.parts())


class Intersection(_Combination):
    """`A & B`: pairs that every member allows."""

    symbol = "&"

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """Whether all members allow the pair."""
        seen = self.members[0].sees(scope, at)
        for member in self.members[1:]:
            seen = seen & member.sees(scope, at)
        return seen

    def spans(self, scope: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """Every range of one member cut with every range of the next."""
        spans = self.members[0].spans(scope, rows, size)
        for member in self.members[1:]:
            mine, theirs = spans[..., :, None, :], member.spans(scope, rows, size)[..., None, :, :]
            low = torch.maximum(mine[..., 0], theirs[..., 0])
            high = torch.minimum(mine[..., 1], theirs[..., 1])
            spans = torch.stack([low, high], dim=-1).flatten(3, 4)
        return spans

    def labels(
        self, scope: Scope, b: Int[Tensor, "..."], h: Int[Tensor, "..."], position: Int[Tensor, "..."]
    ) -> Int[Tensor, "..."]:
        """Those of the first member that has any."""
        return next(member.labels(scope, b, h, position) for member in self.members if member.labelled)

    @property
    def labelled(self) -> bool:
        """Whether any member is."""
        return any(member.labelled for member in self.members)

    def reach(self, scope: Scope) -> tuple[int | float, int | float]:
        """As far as the nearest member."""
        left, right = zip(*(member.reach(scope) for member in self.members), strict=True)
        return min(left), min(right)

    def parts(self) -> tuple[Pattern, ...]:
        """`(A | B) & C` as `A & C` and `B & C`, for the first member that is a union."""
        for number, member in enumerate(self.members):
            if len(own := member.parts()) > 1:
                rest = self.members[:number] + self.members[number + 1 :]
                return tuple(inner for part in own for inner in _combine(Intersection, (part, *rest)).parts())
        return (self,)


def _combine(kind: type[_Combination], sides: Sequence[object]) -> Pattern:
    """Flatten nested combinations of one kind and drop repeated members."""
    members: dict[Pattern, None] = {}
    for side in sides:
        if not isinstance(side, Pattern):
            raise TypeError(must_be(f"each side of {kind.symbol}", "a pattern", side))
        members |= dict.fromkeys(side.members if isinstance(side, kind) else (side,))
    return kind(tuple(members)) if len(members) > 1 else next(iter(members))


def _any(masks: list[Tensor]) -> Tensor:
    seen = masks[0]
    for mask in masks[1:]:
        seen = seen | mask
    return seen


def one_number(what: str, pattern: Pattern, numbers: list[int | None]) -> int | None:
    """The number all agree on who have one."""
    found = sorted({number for number in numbers if number is not None})
    if len(found) > 1:
        raise ValueError(must_be(f"{what} of {pattern!r}", "the same for all its patterns", found))
    return found[0] if found else None

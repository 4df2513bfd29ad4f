"""Patterns made of patterns: `A | B` and `A & B`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from saccade.attention.patterns.pattern import Pairs, Pattern, Scope
from saccade.errors import must_be
from saccade.shapes import Bool, Int


@dataclass(frozen=True, eq=False, repr=False)
class _Combination(Pattern):
    """Several patterns taken together; flat, without repetition, equal in any order."""

    symbol: ClassVar[str]
    members: tuple[Pattern, ...]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and frozenset(self.members) == frozenset(other.members)

    def __hash__(self) -> int:
        if (known := self.__dict__.get("_hash")) is None:  # asked for in every call of `attend`
            known = hash((self.symbol, frozenset(self.members)))
            object.__setattr__(self, "_hash", known)
        return known

    def __getstate__(self) -> dict[str, object]:
        return {"members": self.members}  # hashes of texts differ between processes

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
        return combine(type(self), [member.prefix_form() for member in self.members])

    def reseeded(self, layer: int) -> Pattern:
        """The reseeded members, combined."""
        return combine(type(self), [member.reseeded(layer) for member in self.members])

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
                return tuple(inner for part in own for inner in combine(Intersection, (part, *rest)).parts())
        return (self,)


def combine(kind: type[_Combination], sides: Sequence[object]) -> Pattern:
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

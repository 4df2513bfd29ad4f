"""From a bound pattern to the key tiles each query tile visits, built without an n * n array.

A layout is a tuple of disjoint *parts*. A part is one order of queries and keys and, for each tile of queries, a list
of key tiles with a mask for each. What lies near each other, and what everyone sees, shares one part in the order of
positions (`natural.py`); what only an order of its own brings together (strides, columns of a grid, scattered
segments) is a part for itself (`labelled.py`); pairs that are listed one by one are tiles of size 1 (`listed.py`).

Cost: time and memory follow the number of visited tiles.
"""

from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import or_

from saccade.attention.layout.labelled import labelled
from saccade.attention.layout.listed import listed
from saccade.attention.layout.natural import natural, tile_size, tiles_touched
from saccade.attention.layout.part import FULL, Group, Part
from saccade.attention.patterns import Bound, Pattern, Scope
from saccade.attention.patterns.pattern import on_cpu


@dataclass(frozen=True, eq=False)
class Layout:
    """Everything an engine needs to visit the allowed pairs and little else.

    Attributes:
        scope: the lengths it is made for.
        parts: disjoint parts of the pattern, each in an order of its own.
    """

    scope: Scope
    parts: tuple[Part, ...]

    @property
    def visited(self) -> int:
        """Pairs that are computed, over all heads and the examples that are told apart."""
        return sum(part.visited * self._copies(part) for part in self.parts)

    @property
    def pairs(self) -> int:
        """Pairs that are allowed, each counted once, over all heads and the examples that are told apart."""
        return sum(part.pairs * self._copies(part) for part in self.parts)

    @property
    def share(self) -> float:
        """Visited pairs next to all there are."""
        scope = self.scope
        return self.visited / max(1, scope.examples * scope.heads * scope.n_q * scope.n_k)

    def _copies(self, part: Part) -> int:
        return (self.scope.examples // part.examples) * (self.scope.heads // part.heads)


def layout(bound: Bound, size: int | None = None) -> Layout:
    """The layout of a bound pattern in tiles; the same object for the same pattern and lengths.

    Args:
        bound: pattern and lengths.
        size: positions in a tile; chosen to suit the pattern if not given.
    """
    return _in_tiles(bound.pattern, bound.scope, size)


def pair_layout(bound: Bound) -> Layout:
    """The layout of a bound pattern pair by pair; the same object for the same pattern and lengths."""
    return _in_pairs(bound.pattern, bound.scope)


@on_cpu
def touched(bound: Bound) -> int:
    """Pairs in the tiles that a pattern may touch: what `layout` might visit at most, without asking for masks."""
    pattern, scope = bound.pattern, bound.scope
    size = tile_size(pattern, scope)
    tiles, (examples, heads) = tiles_touched(pattern, scope, size)
    return (scope.examples // examples) * (scope.heads // heads) * size**2 * len(tiles.q)


@lru_cache(maxsize=64)
@on_cpu
def _in_tiles(pattern: Pattern, scope: Scope, size: int | None) -> Layout:
    parts = pattern.parts()
    ordered = [part for part in parts if part.labelled]
    if not ordered:
        return Layout(scope, (natural(pattern, scope, size),))
    plain = [part for part in parts if not part.labelled]
    made, earlier = [], None
    if plain:
        earlier = reduce(or_, plain)
        made.append(natural(earlier, scope, size))
    for part in ordered:
        made.append(labelled(part, scope, size, earlier))
        earlier = part if earlier is None else earlier | part
    return Layout(scope, tuple(made))


@lru_cache(maxsize=64)
@on_cpu
def _in_pairs(pattern: Pattern, scope: Scope) -> Layout:
    return Layout(scope, (listed(pattern, scope, _in_tiles),))


__all__ = ["FULL", "Group", "Layout", "Part", "layout", "pair_layout", "touched"]

"""Patterns beside the oracles that describe them, for all tests of this room."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from hypothesis import strategies as st

import oracles
from saccade.attention.patterns import (
    Axial,
    Causal,
    Edges,
    Full,
    Global,
    Grid,
    Local,
    Nothing,
    Pattern,
    Segments,
    Strided,
)


@dataclass(frozen=True)
class Described:
    """A pattern, what the design says it lets through, and what it says of the causal form.

    The pattern is made when it is first asked for: hypothesis wants nothing random, and beartype is, while it
    draws its examples.
    """

    make: Callable[[], Pattern]
    sees: oracles.Predicate
    causal: oracles.Predicate

    @cached_property
    def pattern(self) -> Pattern:
        return self.make()

    def __repr__(self) -> str:
        return repr(self.pattern)

    def __or__(self, other: "Described") -> "Described":
        return Described(
            lambda: self.pattern | other.pattern,
            oracles.union(self.sees, other.sees),
            oracles.union(self.causal, other.causal),
        )

    def __and__(self, other: "Described") -> "Described":
        return Described(
            lambda: self.pattern & other.pattern,
            oracles.intersection(self.sees, other.sees),
            oracles.intersection(self.causal, other.causal),
        )

    def shifted(self, by: int) -> "Described":
        return Described(
            lambda: self.pattern.shifted(by), oracles.shifted(self.sees, by), oracles.shifted(self.causal, by)
        )


def _described(
    make: Callable[[], Pattern], sees: oracles.Predicate, prefix: oracles.Predicate | None = None
) -> Described:
    return Described(make, sees, oracles.intersection(prefix or sees, oracles.causal()))


def full() -> Described:
    return _described(Full, oracles.full())


def causal() -> Described:
    return _described(Causal, oracles.causal())


def local(left: float, right: float | None = None, block: int | None = None) -> Described:
    right_side = left if right is None else right
    return _described(lambda: Local(left, right, block), oracles.local(left, right_side, block))


def strided(stride: int, steps: int | None = None) -> Described:
    return _described(lambda: Strided(stride, steps), oracles.strided(stride, steps))


def global_tokens(
    first: int = 0,
    last: int = 0,
    positions: tuple[int, ...] = (),
    rows: bool = True,
    columns: bool = True,
) -> Described:
    sees = oracles.global_tokens(first, last, positions, rows, columns)
    # While a sequence is being written nobody knows which of its tokens will be the last.
    prefix = oracles.global_tokens(first, 0, positions, rows, columns)
    return _described(lambda: Global(first, last, positions or None, rows, columns), sees, prefix)


def grid(height: int, width: int, radius: int) -> Described:
    return _described(lambda: Grid(height, width, radius), oracles.grid(height, width, radius))


def axial(height: int, width: int) -> Described:
    return _described(lambda: Axial(height, width), oracles.axial(height, width))


def nothing() -> Described:
    return _described(Nothing, lambda q, k, n: False)


def edges(count: int, nodes: int, seed: int) -> Described:
    draws = random.Random(seed)
    pairs = [(draws.randrange(nodes), draws.randrange(nodes)) for _ in range(count)]
    index = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    return _described(lambda: Edges(index), oracles.edges(set(pairs)))


def segments(longest: int, seed: int, scattered: bool = False) -> Described:
    """Runs of up to `longest` positions; some runs belong to no segment, some to one that was there before."""
    draws, ids = random.Random(seed), []
    while len(ids) < 1200:
        number = draws.randrange(-1, 3) if scattered else len(ids)
        ids += [number] * draws.randint(1, longest)
    return _described(lambda: Segments(torch.tensor(ids)), oracles.segments(ids))


NAMED: dict[str, Described] = {
    "full": full(),
    "causal": causal(),
    "self": local(0),
    "window": local(5, 3),
    "left": local(7, 0),
    "right": local(0, math.inf),
    "behind_none": local(2, 0) & local(0, 2),
    "blocks": local(1, 1, block=16),
    "odd_blocks": local(1, 0, block=7),
    "wide": local(70, 41),
    "strided": strided(5),
    "long_stride": strided(67),
    "steps": strided(3, steps=1),
    "steps_on_tiles": strided(32, steps=2),
    "first": global_tokens(2),
    "last": global_tokens(first=1, last=3),
    "sinks": global_tokens(4, rows=False),
    "rows": global_tokens(0, 2, (11, 13), columns=False),
    "window_global": local(4) | global_tokens(2),
    "window_sinks_causal": (local(9, 0) | global_tokens(3, rows=False)) & causal(),
    "strided_window": local(3, 0) | strided(11),
    "three": local(1, block=8) | global_tokens(1, 1) | strided(13, steps=2),
    "causal_strided": strided(7) & causal(),
    "nested": (local(6) & strided(2)) | (global_tokens(3) & local(20, 20)),
    "grid": grid(7, 9, 2),
    "wide_grid": grid(4, 70, 1),
    "axial": axial(8, 11),
    "axial_causal": axial(11, 5) & causal(),
    "axial_window": axial(3, 20) | local(2) | global_tokens(1),
    "shifted_window": local(5).shifted(3) | global_tokens(3),
    "shifted_strides": (strided(6) | global_tokens(2, 2)).shifted(16),
    "shifted_grid": grid(6, 8, 1).shifted(1) | global_tokens(1),
    "edges": edges(300, 60, seed=0),
    "edges_causal": edges(500, 101, seed=1) & causal(),
    "edges_and_node": edges(200, 80, seed=2) | global_tokens(1),
    "shifted_edges": edges(200, 80, seed=4).shifted(2),
    "segments": segments(30, seed=0),
    "segments_causal": segments(50, seed=1) & causal(),
    "scattered_segments": segments(7, seed=2, scattered=True),
    "segments_window": segments(40, seed=3, scattered=True) & local(20) | global_tokens(2),
    "strides_in_segments": segments(60, seed=4) & strided(3) | strided(17, steps=1),
    "nothing": nothing(),
    "some_empty": strided(5) & local(4, 0) & global_tokens(0, 0, (3, 10)),
}


_reach = st.one_of(st.integers(0, 9), st.sampled_from([31, 64, math.inf]))
_windows = st.builds(local, _reach, _reach, st.sampled_from([None, None, 1, 3, 4, 16]))
_strides = st.builds(strided, st.integers(1, 40), st.sampled_from([None, 0, 1, 2, 5]))
_globals = st.builds(
    global_tokens,
    st.integers(0, 5),
    st.integers(0, 5),
    st.lists(st.integers(0, 50), max_size=3).map(tuple),
    rows=st.just(True),
    columns=st.booleans(),
)
_columns = st.builds(lambda first, last: global_tokens(first, last, rows=False), st.integers(0, 5), st.integers(0, 5))
_grids = st.builds(grid, st.integers(1, 9), st.integers(1, 40), st.integers(0, 3))
_lines = st.builds(axial, st.integers(1, 20), st.integers(1, 40))
_leaves = st.one_of(
    st.builds(full), st.builds(causal), st.builds(nothing), _windows, _strides, _globals, _columns, _grids, _lines
)
_carrying = st.one_of(
    st.builds(edges, st.integers(0, 200), st.integers(1, 150), st.integers(0, 99)),
    st.builds(segments, st.integers(1, 70), st.integers(0, 99), st.booleans()),
)


def _expressions(leaves: st.SearchStrategy[Described]) -> st.SearchStrategy[Described]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
            st.tuples(inner, inner).map(lambda pair: pair[0] & pair[1]),
            st.tuples(inner, st.integers(0, 70)).map(lambda pair: pair[0].shifted(pair[1])),
        ),
        max_leaves=4,
    )


written = _expressions(_leaves)
"""Any expression of a few parts that has a text."""

patterns = _expressions(st.one_of(_leaves, _carrying))
"""Any expression of a few parts."""

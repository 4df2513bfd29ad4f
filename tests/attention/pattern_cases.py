"""Patterns beside the oracles that describe them, for all tests of this room."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from hypothesis import strategies as st
from torch import Tensor

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
    PerHead,
    Segments,
    Strided,
)
from saccade.shapes import Bool


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


@dataclass(frozen=True)
class ToldApart:
    """A pattern that differs between examples or heads, and what each of them lets through.

    `sees[example][head]` has one row where all examples are alike.
    """

    make: Callable[[], Pattern]
    sees: tuple[tuple[oracles.Predicate, ...], ...]

    @cached_property
    def pattern(self) -> Pattern:
        return self.make()

    def __repr__(self) -> str:
        return repr(self.pattern)

    def dense(
        self, n_q: int, n_k: int, q_start: int = 0, live: tuple[int, ...] | None = None
    ) -> Bool[Tensor, "b h q k"]:
        """The mask of each example and head, for examples of some lengths."""
        examples = max(len(self.sees), len(live or ()))
        lengths = live or (n_k,) * examples
        rows = self.sees if len(self.sees) == examples else self.sees * examples
        masks = [
            torch.stack([oracles.dense(sees, n_q, n_k, q_start, length) for sees in row])
            for row, length in zip(rows, lengths, strict=True)
        ]
        return torch.stack(masks)


def per_head(cases: list[Described]) -> ToldApart:
    return ToldApart(lambda: PerHead([case.pattern for case in cases]), (tuple(case.sees for case in cases),))


def segments_of_examples(seeds: tuple[int, ...], longest: int, heads: int, others: Described) -> ToldApart:
    """Scattered segments, other ones in each example, together with a pattern that is the same in all."""
    rows = []
    for seed in seeds:
        draws, ids = random.Random(seed), []
        while len(ids) < 200:
            ids += [draws.randrange(-2, 4) * 10**17] * draws.randint(1, longest)
        rows.append(ids[:200])
    sees = tuple((oracles.union(oracles.segments(ids), others.sees),) * heads for ids in rows)
    return ToldApart(lambda: Segments(torch.tensor(rows)) | others.pattern, sees)


HEADS: dict[str, ToldApart] = {
    "windows": per_head([local(2), local(5, 0), local(2), nothing()]),
    "own_orders": per_head([strided(7), axial(9, 8), segments(9, seed=5, scattered=True), strided(11, steps=2)]),
    "orders_in_some": per_head([strided(7) | global_tokens(1, 2), local(4), axial(9, 8) & causal(), nothing()]),
    "rounds": per_head([strided(7) | axial(5, 9), strided(5) | local(3), full(), causal()]),
    "edges_in_one": per_head([edges(150, 70, seed=6), local(3), strided(9), global_tokens(0, 3)]),
    "edges_in_all": per_head([edges(150, 70, seed=seed) for seed in range(4)]),
    "moved": per_head([strided(7).shifted(3), (edges(90, 50, seed=7) | local(2)).shifted(9), local(3), grid(8, 9, 1)]),
    "globals_in_some": per_head([global_tokens(2), global_tokens(0, 5, rows=False), global_tokens(1, 1), local(0)]),
}
"""Four heads each."""

EXAMPLES: dict[str, ToldApart] = {
    "alone": segments_of_examples((0, 1), 9, 4, nothing()),
    "long": segments_of_examples((2, 3), 60, 4, nothing()),
    "with_window": segments_of_examples((4, 5), 20, 4, local(3)),
    "with_last": segments_of_examples((6, 7), 20, 4, global_tokens(1, last=2)),
    "with_strides": segments_of_examples((8, 9), 20, 4, strided(7)),
}
"""Two examples each, and four heads."""

heads = st.lists(_expressions(st.one_of(_leaves, _carrying)), min_size=1, max_size=4).map(per_head)
"""A pattern for each of a few heads."""

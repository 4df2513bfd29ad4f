"""The mask functions of transformers as patterns.

A mask function says of an example, a head, a query and a key whether the query may see the key. transformers makes them
of a few kinds, joined by `and` and `or`. The kind is told by the code that it runs, which is proof, and what it is made
with (a window, the packed documents) is read from its closure. Of a function of anybody else nothing is known: it is
refused.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from typing import Any

import torch
from torch import Tensor
from transformers import masking_utils as kinds

from saccade.attention.patterns import Causal, Full, Local, Pattern, Segments
from saccade.errors import must_be

READABLE = (
    "causal, bidirectional, a sliding window, chunks, blocks or packed sequences, joined by and_masks or or_masks"
)


@dataclass(frozen=True)
class Sizes:
    """Where the queries and keys of a call stand.

    Attributes:
        batch: examples.
        q_start: position of the first query.
        queries: how many.
        k_start: position of the first key.
        keys: how many.
    """

    batch: int
    q_start: int
    queries: int
    k_start: int
    keys: int

    @property
    def q_end(self) -> int:
        """One past the last query."""
        return self.q_start + self.queries

    @property
    def end(self) -> int:
        """One past the last position of a query or a key."""
        return max(self.q_end, self.k_start + self.keys)


def patterns_of(function: Callable[..., Any] | None, sizes: Sizes) -> tuple[Pattern, ...]:
    """The patterns that all must show a key to a query where the function does.

    Args:
        function: a mask function; the causal one if not given.
        sizes: of the call: what depends on positions is made for as many.

    Raises:
        ValueError: a function that is not transformers' own.
    """
    if function is None or function is kinds.causal_mask_function:
        return (Causal(),)
    if function is kinds.bidirectional_mask_function:
        return (Full(),)
    read = _READERS.get(getattr(function, "__code__", None))
    if read is None:
        raise _unread(function)
    return read(_made_with(function), sizes)


def _made_with(function: Callable[..., Any]) -> dict[str, Any]:
    """What a mask function has in its closure."""
    cells = getattr(function, "__closure__", None) or ()
    return {name: cell.cell_contents for name, cell in zip(function.__code__.co_freevars, cells, strict=True)}


def _unread(function: Callable[..., Any], why: str = "") -> ValueError:
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}{why}"
    return ValueError(must_be("mask function", READABLE, name))


def _all_of(made: Mapping[str, Any], sizes: Sizes) -> tuple[Pattern, ...]:
    """Those of all members; positions within packed documents are read where the documents are members as well."""
    members = made["mask_functions"]
    packed = [_made_with(each)["packed_sequence_mask"] for each in members if each.__code__ is _PACKED]
    found = []
    for member in members:
        if getattr(member, "__code__", None) is _REMAPPED:
            found += _within_documents(member, packed, sizes)
        else:
            found += patterns_of(member, sizes)
    return tuple(dict.fromkeys(found))


def _any_of(made: Mapping[str, Any], sizes: Sizes) -> tuple[Pattern, ...]:
    """One: the union of the members, each of which may be several patterns at once."""
    return (reduce(or_, (reduce(and_, patterns_of(member, sizes)) for member in made["mask_functions"])),)


def _within_documents(function: Callable[..., Any], packed: list[Tensor], sizes: Sizes) -> tuple[Pattern, ...]:
    """A function of the positions within documents, which is one of positions where only distances count."""
    made = _made_with(function)
    patterns, positions = patterns_of(made["mask_function"], sizes), made["position_ids"]
    if not all(pattern.by_distance for pattern in patterns):
        raise _unread(function, f" of {', '.join(map(repr, patterns))}, which counts from the start of each document")
    steps = positions.diff(dim=1) == 1
    same = [ids.diff(dim=1) == 0 for ids in packed if ids.shape == positions.shape]
    if not same or not bool((steps | ~same[0]).all()):
        raise _unread(function, " of documents whose positions do not count up one by one")
    return patterns


def _window_back(made: Mapping[str, Any], sizes: Sizes) -> tuple[Pattern, ...]:
    return (Local(made["sliding_window"] - 1, math.inf),)


def _window(made: Mapping[str, Any], sizes: Sizes) -> tuple[Pattern, ...]:
    return (Local(made["sliding_window"]),)


def _chunks(made: Mapping[str, Any], sizes: Sizes) -> tuple[Pattern, ...]:
    """Chunks are counted from the first real token of each example."""
    size, padding = made["chunk_size"], made["left_padding"]
    if not bool(padding.any()):
        return (Local(0, block=size),)
    places = torch.arange(sizes.end, device=padding.device) - padding[:, None]
    ids = places.div(size, rounding_mode="floor")
    return (Segments(ids - ids.min()),)


def _documents(made: Mapping[str, Any], sizes: Sizes) -> tuple[Pattern, ...]:
    return (Segments(made["packed_sequence_mask"]),)


def _blocks(made: Mapping[str, Any], sizes: Sizes) -> tuple[Pattern, ...]:
    return (Segments(made["block_sequence_ids"]),)


_nothing = torch.zeros(1, 1, dtype=torch.long)
_PACKED = kinds.packed_sequence_mask_function(_nothing).__code__
_REMAPPED = kinds.remap_positions_for_packed_sequence(kinds.causal_mask_function, _nothing).__code__
_READERS: dict[object, Callable[[Mapping[str, Any], Sizes], tuple[Pattern, ...]]] = {
    kinds.and_masks(kinds.causal_mask_function).__code__: _all_of,
    kinds.or_masks(kinds.causal_mask_function).__code__: _any_of,
    kinds.sliding_window_overlay(1).__code__: _window_back,
    kinds.sliding_window_bidirectional_overlay(1).__code__: _window,
    kinds.chunked_overlay(1, _nothing).__code__: _chunks,
    kinds.blockwise_overlay(_nothing).__code__: _blocks,
    _PACKED: _documents,
}

"""The decoding state of softmax attention: the keys and values that a later query may still see.

Source: rolling windows with attention sinks, StreamingLLM (Xiao et al. 2023).

Cost: a step reads and copies what is kept, so n tokens take O(n window) under a window and O(n^2) otherwise.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from saccade.attention.inputs import hide
from saccade.attention.patterns import Causal, Full, Global, Local, Pattern
from saccade.attention.patterns.combined import Intersection, Union
from saccade.attention.states import state_dtype
from saccade.shapes import Bool, Float


class KeyValues(NamedTuple):
    """Keys and values in the order of their positions.

    Attributes:
        keys: zero where hidden.
        values: zero where hidden.
        key_mask: True for real keys. A hidden one keeps its place: windows count positions, not real tokens.
    """

    keys: Float[Tensor, "b g k d"]
    values: Float[Tensor, "b g k e"]
    key_mask: Bool[Tensor, "b k"]

    @property
    def length(self) -> int:
        """How many tokens there are."""
        return self.key_mask.shape[1]


class Kept(NamedTuple):
    """Which tokens a decoding query sees: the first ones and the last ones, itself included. No others, ever."""

    first: int
    last: int | float

    @property
    def limit(self) -> int | float:
        """How many tokens that makes at most."""
        return self.first + self.last


EVERYTHING = Kept(0, math.inf)


def kept(pattern: Pattern) -> Kept | None:
    """What every query of a causal form sees, if that is some first and last tokens and nothing else."""
    found = _ends(pattern)
    return found if found and found.last else None


def _ends(pattern: Pattern) -> Kept | None:
    """The same for a part of a causal form, which need not show a query itself."""
    match pattern:
        case Full():
            return EVERYTHING
        case Local(left=left, block=None):
            return Kept(0, left + 1)
        case Global(first=first, last=0, positions=None, columns=True):
            return Kept(first, 0)
        case Union(parts):
            ends = [found for part in parts if (found := _ends(part))]
            return Kept(*map(max, zip(*ends, strict=True))) if len(ends) == len(parts) else None
        case Intersection(parts):
            rest = [part for part in parts if part != Causal()]
            return _ends(rest[0]) if len(rest) == 1 else None
    return None


def key_values(
    k: Float[Tensor, "b g k d"], v: Float[Tensor, "b g k e"], key_mask: Bool[Tensor, "b k"] | None
) -> KeyValues:
    """Tokens as a state holds them."""
    wide = state_dtype(k.dtype)
    k, v = hide(k.to(wide), v.to(wide), key_mask)
    if key_mask is None:
        key_mask = torch.ones(k.shape[0], k.shape[2], dtype=torch.bool, device=k.device)
    return KeyValues(k, v, key_mask)


def joined(keep: Kept, old: KeyValues, *new: KeyValues) -> KeyValues:
    """Old and new tokens in one, without those of the old that no later query sees. Always a copy."""
    excess = old.length + sum(tokens.length for tokens in new) - keep.limit
    leaves = []
    for axis, (leaf, *newer) in zip((2, 2, 1), zip(old, *new, strict=True), strict=True):
        if excess > 0:
            end = keep.first + int(excess)
            leaf, *newer = leaf.narrow(axis, 0, keep.first), leaf.narrow(axis, end, old.length - end), *newer
        leaves.append(torch.cat([leaf, *newer], axis))
    return KeyValues(*leaves)

"""Pairs one by one, for patterns that are lists of pairs: a layout whose tiles hold one query and one key.

Queries with about as many keys form a group; shorter lists are filled up with a key that is masked out.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saccade.attention.layout.part import FULL, Group, Part
from saccade.attention.patterns import Bound, Intersection, Pairs, Pattern, PerHead, Scope, Shifted, Union
from saccade.shapes import Int

if TYPE_CHECKING:
    from saccade.attention.layout import Layout

HIDDEN = 1
"""Number of the mask that lets nothing through."""


def listed(pattern: Pattern, scope: Scope, tiled: "Callable[[Pattern, Scope, None], Layout]") -> Part:
    """Any pattern as one part of tiles of size 1.

    Args:
        pattern: what is laid out.
        scope: the lengths.
        tiled: makes the layout in tiles of what is not given as a list.
    """
    examples, heads = Bound(pattern, scope).told_apart
    pairs = _pairs(pattern, scope, (examples, heads), tiled)
    return Part(
        n_k=scope.n_k,
        size=1,
        front=0,
        first_tile=scope.q_start,
        query_tiles=scope.n_q,
        examples=examples,
        heads=heads,
        groups=_groups(pairs),
        table=torch.tensor([[[True]], [[False]]]),
        rows=torch.zeros(examples, heads, 0, dtype=torch.long),
    )


def _pairs(
    pattern: Pattern, scope: Scope, lead: tuple[int, int], tiled: "Callable[[Pattern, Scope, None], Layout]"
) -> Pairs:
    """All pairs, ordered by example, head, query and key, each once, for all examples and heads told apart."""
    if (pairs := pattern.listed(scope)) is not None:
        return _ordered([_repeated(pairs, (1, 1), lead)], scope)
    if isinstance(pattern, Union):
        return _ordered([_pairs(member, scope, lead, tiled) for member in pattern.members], scope)
    if isinstance(pattern, Intersection):
        for member in pattern.members:
            if (pairs := member.listed(scope)) is not None:
                pairs = _repeated(pairs, (1, 1), lead)
                seen = pattern.sees(scope, pairs)
                return _ordered([Pairs(*(axis[seen] for axis in pairs))], scope)
    if isinstance(pattern, Shifted):
        pairs = _pairs(pattern.pattern, pattern.inner(scope), lead, tiled)
        return pairs._replace(q=pairs.q + pattern.n, k=pairs.k + pattern.n)
    if isinstance(pattern, PerHead):
        found = []
        for each in dict.fromkeys(pattern.patterns):
            pairs = _pairs(each, scope, lead, tiled)
            own = torch.tensor([each == other for other in pattern.patterns])[pairs.h]
            found.append(Pairs(*(axis[own] for axis in pairs)))
        return _ordered(found, scope)
    parts = tiled(pattern, scope, None).parts
    return _ordered([_repeated(_of(part, scope), (part.examples, part.heads), lead) for part in parts], scope)


def _repeated(pairs: Pairs, had: tuple[int, int], lead: tuple[int, int]) -> Pairs:
    """The same pairs for examples and heads that were alike."""
    more_b, more_h = (torch.arange(want // got) for want, got in zip(lead, had, strict=True))
    lists = [pairs.b + more_b[:, None, None], pairs.h + more_h[:, None], pairs.q, pairs.k]
    return Pairs(*(axis.expand(len(more_b), len(more_h), -1).flatten() for axis in lists))


def _ordered(lists: list[Pairs], scope: Scope) -> Pairs:
    """All pairs of some lists, each once, in order."""
    b, h, q, k = (torch.cat(axis) for axis in zip(*lists, strict=True))
    flat = torch.unique(((b * scope.heads + h) * scope.end + q) * scope.end + k)
    lead = flat // scope.end**2
    return Pairs(lead // scope.heads, lead % scope.heads, flat // scope.end % scope.end, flat % scope.end)


def _of(part: Part, scope: Scope) -> Pairs:
    """The pairs of a part in tiles."""
    within = torch.arange(part.size)
    found = []
    for group in part.groups:
        member, tile, q, k = part.table[group.masks.expand_as(group.keys)].nonzero().unbind(1)
        q = group.query[member] * part.size + within[q] - part.first_tile * part.size - part.front
        k = group.keys[member, tile] * part.size + within[k]
        found.append(_moved(part, Pairs(group.example[member], group.head[member], q, k), scope))
    b, h, row, k = (part.rows[..., None] >= 0).expand(*part.rows.shape, part.n_k).nonzero().unbind(1)
    if part.row_mask is not None:
        b, h, row, k = part.row_mask.nonzero().unbind(1)
    return Pairs(
        *(torch.cat(axis) for axis in zip(*found, Pairs(b, h, part.rows[b, h, row] + scope.q_start, k), strict=True))
    )


def _moved(part: Part, pairs: Pairs, scope: Scope) -> Pairs:
    """Positions instead of places."""
    q = pairs.q if part.queries is None else part.queries[pairs.b, pairs.h, pairs.q]
    k = pairs.k if part.keys is None else part.keys[pairs.b, pairs.h, pairs.k]
    return pairs._replace(q=q + scope.q_start, k=k)


def _groups(pairs: Pairs) -> tuple[Group, ...]:
    """Queries with about equally many keys; the lists of keys filled up with masked ones."""
    owner, count = torch.stack(pairs[:3]).unique_consecutive(dim=1, return_counts=True)
    start = count.cumsum(0) - count
    length = _rounded(count)
    groups = []
    for most in length.unique().tolist():
        mine = (length == most).nonzero()[:, 0]
        place = torch.arange(most)
        there = place < count[mine, None]
        keys = pairs.k[torch.where(there, start[mine, None] + place, start[mine, None])]
        masks = torch.where(there, FULL, HIDDEN)
        example, head, query = owner[:, mine]
        groups.append(Group(example, head, query, keys, masks[:1] if bool(there.all()) else masks))
    return tuple(groups)


def _rounded(count: Int[Tensor, " m"]) -> Int[Tensor, " m"]:
    """Up to the next of a few lengths, at most a quarter more: few groups, little filling."""
    step = torch.pow(2, (count.clamp(min=1).log2().floor() - 2).clamp(min=0)).long()
    return -(-count // step) * step

"""A pattern of its own for each head.

Source: the factorised heads of Sparse Transformer (Child et al. 2019); Longformer's dilation on some heads only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import torch
from torch import Tensor

from saccade.attention.patterns.combined import one_number
from saccade.attention.patterns.local import Nothing
from saccade.attention.patterns.pattern import Pairs, Pattern, Scope
from saccade.errors import must_be
from saccade.shapes import Bool, Int


@dataclass(frozen=True, init=False, repr=False)
class PerHead(Pattern):
    """Head i has the pattern number i.

    Args:
        patterns: one for each head.

    Raises:
        TypeError: something that is no pattern.
        ValueError: none at all, or one that is made for another number of heads.
    """

    patterns: tuple[Pattern, ...]

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        if not isinstance(patterns, list | tuple) or not all(isinstance(each, Pattern) for each in patterns):
            raise TypeError(must_be("patterns", "a list of patterns, one for each head", patterns))
        if not patterns:
            raise ValueError(must_be("patterns", "at least one", patterns))
        for each in patterns:
            if each.heads not in (None, len(patterns)):
                raise ValueError(must_be("patterns", f"made for {len(patterns)} heads, as many as there are", each))
        object.__setattr__(self, "patterns", tuple(patterns))

    def _by_head(self, h: Int[Tensor, "..."], like: Tensor, ask: Callable[[Pattern], Tensor], otherwise: int) -> Tensor:
        """The answer of the pattern of each head, each different pattern asked once."""
        answer = torch.full_like(like, otherwise)
        for pattern in dict.fromkeys(self.patterns):
            own = torch.tensor([each == pattern for each in self.patterns], device=h.device)[h]
            answer = torch.where(own, ask(pattern), answer)
        return answer

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """What the pattern of the head says."""
        like = torch.zeros_like(at.q + at.k + at.h, dtype=torch.bool)
        return self._by_head(at.h, like, lambda pattern: pattern.sees(scope, at), otherwise=False)

    def spans(self, scope: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """The ranges of each head's pattern."""
        spans = [each.spans(scope, rows, size) for each in self.patterns]
        examples, most = (max(s.shape[axis] for s in spans) for axis in (0, 3))
        out = torch.zeros(examples, len(spans), len(rows), most, 2, dtype=torch.long)
        for head, own in enumerate(spans):
            out[:, head, :, : own.shape[3]] = own[:, head if own.shape[1] > 1 else 0]
        return out

    def tile_keys(self, scope: Scope, size: int, tiles: Pairs) -> Int[Tensor, "t m"]:
        """The keys of the pattern of the head, and which pattern that is."""
        kinds = list(dict.fromkeys(self.patterns))
        kind = torch.tensor([kinds.index(each) for each in self.patterns])[tiles.h]
        parts = [kind[:, None]]
        for number, pattern in enumerate(kinds):
            own = kind == number
            keys = pattern.tile_keys(scope, size, Pairs(*(axis[own] for axis in tiles)))
            parts.append(torch.zeros(len(own), keys.shape[1], dtype=torch.long).masked_scatter(own[:, None], keys))
        return torch.cat(parts, dim=1)

    def dense_rows(self, scope: Scope) -> Bool[Tensor, "b h q"] | None:
        """Those of each head's pattern."""
        found = [each.dense_rows(scope) for each in self.patterns]
        if all(rows is None for rows in found):
            return None
        none = torch.zeros(1, 1, scope.n_q, dtype=torch.bool)
        heads = [none if rows is None else rows[:, min(h, rows.shape[1] - 1), None] for h, rows in enumerate(found)]
        examples = max(rows.shape[0] for rows in heads)
        return torch.cat([rows.expand(examples, -1, -1) for rows in heads], dim=1)

    def labels(
        self, scope: Scope, b: Int[Tensor, "..."], h: Int[Tensor, "..."], position: Int[Tensor, "..."]
    ) -> Int[Tensor, "..."]:
        """Those of the pattern of the head, -1 where it has none because it sees nothing."""
        like = b + h + position

        def ask(pattern: Pattern) -> Tensor:
            return pattern.labels(scope, b, h, position) if pattern.labelled else torch.full_like(like, -1)

        return self._by_head(h, like, ask, otherwise=-1)

    @property
    def labelled(self) -> bool:
        """Whether all patterns are that see anything."""
        return all(each.labelled or each == Nothing() for each in self.patterns)

    def parts(self) -> tuple[Pattern, ...]:
        """What has no labels in any head; then the first part with labels of every head, the second, and so on."""
        plain, labelled = [], []
        for pattern in self.patterns:
            parts = pattern.parts()
            plain.append(_union([part for part in parts if not part.labelled]))
            labelled.append([part for part in parts if part.labelled])
        rounds = [
            [own[number] if number < len(own) else Nothing() for own in labelled]
            for number in range(max(map(len, labelled)))
        ]
        rounds = rounds if all(each == Nothing() for each in plain) else [plain, *rounds]
        return tuple(PerHead(patterns) for patterns in rounds) if len(rounds) > 1 else (self,)

    def reach(self, scope: Scope) -> tuple[int | float, int | float]:
        """As far as the farthest head."""
        left, right = zip(*(each.reach(scope) for each in self.patterns), strict=True)
        return max(left), max(right)

    def prefix_form(self) -> "PerHead":
        """The prefix forms."""
        return PerHead([each.prefix_form() for each in self.patterns])

    def reseeded(self, layer: int) -> "PerHead":
        """The patterns reseeded."""
        return PerHead([each.reseeded(layer) for each in self.patterns])

    @property
    def needs_length(self) -> bool:
        """Whether any head does."""
        return any(each.needs_length for each in self.patterns)

    @property
    def tile_sizes(self) -> tuple[int, ...]:
        """The sizes of all heads."""
        return tuple(size for each in self.patterns for size in each.tile_sizes)

    @property
    def has_lists(self) -> bool:
        """Whether any head is."""
        return any(each.has_lists for each in self.patterns)

    @property
    def heads(self) -> int:
        """As many as there are patterns."""
        return len(self.patterns)

    @property
    def examples(self) -> int | None:
        """The one number that patterns are made for."""
        return one_number("examples", self, [each.examples for each in self.patterns])

    def __repr__(self) -> str:
        return f"PerHead([{', '.join(map(repr, self.patterns))}])"


def _union(patterns: list[Pattern]) -> Pattern:
    """All of them; nothing where there are none."""
    return reduce(or_, patterns) if patterns else Nothing()

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
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor

from saccade.errors import must_be
from saccade.shapes import Bool, Int

P = ParamSpec("P")
R = TypeVar("R")


def on_cpu(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with the CPU as torch's default device: deciding who sees whom is many small steps."""

    @wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> R:
        if torch.get_default_device().type == "cpu":  # already: to say it again costs every step a few microseconds
            return function(*args, **options)
        with torch.device("cpu"):
            return function(*args, **options)

    return run


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
        from saccade.attention.patterns.combined import Union, combine  # patterns themselves

        return combine(Union, (self, other))

    def __and__(self, other: "Pattern") -> "Pattern":
        from saccade.attention.patterns.combined import Intersection, combine  # patterns themselves

        return combine(Intersection, (self, other))


@dataclass(frozen=True)
class Bound:
    """A pattern with the lengths it is used at.

    Attributes:
        pattern: who may look at whom.
        scope: the lengths.
    """

    pattern: Pattern
    scope: Scope

    @property
    def allows(self) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """May query number `q` of head `h` of example `b` look at key `k`? Queries count from 0.

        A plain function of these four, so that it can be the `mask_mod` of torch's FlexAttention.
        """
        pattern, scope = self.pattern, self.scope

        def allows(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return pattern.sees(scope, Pairs(b, h, q + scope.q_start, k))

        return allows

    @property
    def told_apart(self) -> tuple[int, int]:
        """How many examples and heads differ in what they see; 1 where all are alike."""
        row = torch.zeros(1, dtype=torch.long, device="cpu")
        examples, heads = on_cpu(self.pattern.spans)(self.scope, row, 64).shape[:2]
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

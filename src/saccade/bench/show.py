"""Who looks at whom: the weights of a mechanism as a square of queries by keys. Cost: O(n^2) memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from saccade.attention import MECHANISMS, Mechanism, to_mechanism
from saccade.attention.mechanisms import mixed
from saccade.attention.mechanisms.mixed import MixedAttention
from saccade.attention.mechanisms.sparse import SparseAttention
from saccade.attention.patterns import Pattern
from saccade.attention.weights import implied_weights
from saccade.bench.cost import cost
from saccade.bench.shades import FULL_INK, shares, strength
from saccade.errors import must_be
from saccade.seeded import seeded
from saccade.shapes import Float, Tensor

LENGTHS = (64, 128, 256, 512, 1024, 2048)
LONGEST = 8192
HEAD_DIM = 64
TOPICS, PIECES, LIKENESS = 8, 16, 0.6
"""Of made-up content: how many topics, in about how many pieces, and how much of a token is its topic."""

GALLERY = {"sparse": "Local(32) & Strided(4) | Global(8)"}
"""What stands in the gallery for a name whose default looks like another's. `sparse` takes any pattern."""


@dataclass(frozen=True, eq=False)
class View:
    """The weights of a mechanism at one length.

    Attributes:
        mechanism: whose they are.
        causal: whether later keys are hidden.
        weights: of each head, query and key; the rows of a query that sees nothing are zero.
        operations: operations of a forward pass as a share of full attention's.
        seed: what the inputs were drawn from, or `None` where the weights do not depend on them.
    """

    mechanism: Mechanism
    causal: bool
    weights: Float[Tensor, "h n n"]
    operations: float
    seed: int | None

    @property
    def length(self) -> int:
        """Number of queries and of keys."""
        return self.weights.shape[-1]

    @property
    def title(self) -> str:
        """What is drawn."""
        return f"{self.mechanism!r}, causal" if self.causal else repr(self.mechanism)

    @property
    def names(self) -> list[str]:
        """What tells each head from the others: its number, and its part of a mixture; empty for a single head."""
        heads, spec = len(self.weights), self.mechanism
        if heads == 1:
            return [""]
        if not isinstance(spec, MixedAttention):
            return [f"head {head}" for head in range(heads)]
        counts = mixed.shares(spec.counts, heads, heads)
        parts = [part for part, count in zip(spec.specs, counts, strict=True) for _ in range(count)]
        return [f"head {head}, {part}" for head, part in enumerate(parts)]

    @property
    def strength(self) -> Float[Tensor, "h n n"]:
        """How much ink each pair asks for: a mask's is 1 where a query sees a key, whatever the weight there."""
        return (self.weights != 0).to(self.weights) if self.seed is None else strength(shares(self.weights))

    @property
    def kept(self) -> list[float]:
        """The share of all pairs that have a weight, head by head."""
        return (self.weights != 0).double().mean((1, 2)).tolist()

    @property
    def signed(self) -> bool:
        """Whether some weights are below zero."""
        return bool((self.weights < 0).any())

    @property
    def facts(self) -> str:
        """Length, pairs that have a weight, and operations next to full attention."""
        kept, operations = _percent(sum(self.kept) / len(self.kept)), _percent(self.operations)
        return f"n = {self.length:,} · {kept} of n² pairs · {operations} of full's operations"

    @property
    def note(self) -> str:
        """What the shades mean, and of which inputs the weights are."""
        return " ".join(legend([self]))


def legend(views: Sequence[View]) -> list[str]:
    """What the shades of the views mean: a line where they show masks, and a line where weights depend on content."""
    lines, weighed = [], [view for view in views if view.seed is not None]
    if len(weighed) < len(views):
        lines.append("Filled: the query sees the key.")
    if weighed:
        seeds = ", ".join(map(str, dict.fromkeys(view.seed for view in weighed)))
        below = " Orange is below zero." if any(view.signed for view in weighed) else ""
        lines.append(
            f"Made-up content ({TOPICS} topics that come and go, seed {seeds}): the fuller, the more of its query's "
            f"weight a key has, full at {FULL_INK} times an equal share.{below}"
        )
    return lines


def look(
    mechanism: str | Mechanism | Pattern,
    length: int | None = None,
    *,
    causal: bool = False,
    heads: int | None = None,
    seed: int = 0,
) -> View:
    """The weights of a mechanism, which for softmax under a pattern show the pattern.

    Args:
        mechanism: a name, an expression, a spec or a pattern.
        length: number of queries and keys; `telling_length` if not given.
        causal: whether a query sees only keys up to its own position.
        heads: how many heads; `telling_heads` if not given.
        seed: of the made-up content, where the weights depend on it, and of parameters as they start out.

    Raises:
        ValueError: an unknown mechanism, no heads, or a length that is too small or too large to draw.
    """
    spec = to_mechanism(mechanism)
    heads = telling_heads(spec) if heads is None else heads
    if heads < 1:
        raise ValueError(must_be("heads", "at least 1", heads))
    length = telling_length(spec, heads, causal=causal) if length is None else length
    if not 1 <= length <= LONGEST:
        raise ValueError(must_be("length", f"from 1 to {LONGEST:,}", length))
    # Gates are half open. Equal scores give every key that a softmax sees the same weight: only the pattern is left.
    q, k = torch.zeros(2, 1, heads, length, HEAD_DIM) if spec.claims.exact else made_up(length, heads, seed)
    with seeded(seed), torch.no_grad():
        layer = spec.build(heads, HEAD_DIM, value_dim=length).eval()
        given = {"q": q, "k": k, "v": torch.zeros(1, heads, length, length), "gate": torch.zeros(1, heads, length, 1)}
        weights = implied_weights(layer, {name: given[name] for name in spec.inputs}, causal=causal)[0]
    return View(spec, causal, weights, _operations(spec, length, heads, causal), None if spec.claims.exact else seed)


def made_up(length: int, heads: int, seed: int) -> Float[Tensor, "2 1 h n d"]:
    """Queries and keys of topics that come and go, as in a text: alike within a topic, and noise besides.

    Of plain noise every key is about as good as another, and a mechanism that looks for likeness has nothing to find.
    """
    draws = torch.Generator().manual_seed(seed)
    piece = (torch.rand(length, generator=draws) < PIECES / length).cumsum(0)
    topic = torch.randint(TOPICS, (length + 1,), generator=draws)[piece]
    meant = torch.randn(heads, TOPICS, HEAD_DIM, generator=draws)[:, topic]
    noise = torch.randn(2, 1, heads, length, HEAD_DIM, generator=draws)
    return LIKENESS * meant + (1 - LIKENESS**2) ** 0.5 * noise


def gallery(length: int | None = None, *, causal: bool = False, heads: int | None = None, seed: int = 0) -> list[View]:
    """A view of every mechanism of THE LIST with its default options, each at its own telling length if none is given.

    With `causal`, of those that can be causal. Arguments and errors as in `look`.
    """
    specs = [to_mechanism(GALLERY.get(name, name)) for name in MECHANISMS]
    shown = [spec for spec in specs if spec.claims.causal or not causal]
    return [look(spec, length, causal=causal, heads=heads, seed=seed) for spec in shown]


def telling_heads(spec: Mechanism) -> int:
    """The fewest heads that show what the mechanism does: one of each part of a mixture, and otherwise mostly one."""
    if isinstance(spec, MixedAttention):
        return len(spec.parts)
    return (isinstance(spec, SparseAttention) and spec.shown().heads) or 1


def telling_length(spec: Mechanism, heads: int, *, causal: bool = False) -> int:
    """The shortest power of two at which a picture says something: large enough to leave most pairs out.

    A query should see six keys or more, so that strides show, and the whole should take at most 0.4 of full
    attention's operations. Where both cannot be, the first does not matter; where nothing is saved, 64.
    """
    sparse = [n for n in LENGTHS if _operations(spec, n, heads, causal) <= 0.4]
    rich = [n for n in sparse if not 0 < cost(spec, n, heads=heads, causal=causal).pairs < 6 * n * heads]
    return min(rich or sparse or LENGTHS)


def _operations(spec: Mechanism, length: int, heads: int, causal: bool) -> float:
    own, full = (cost(each, length, heads=heads, head_dim=HEAD_DIM, causal=causal) for each in (spec, "full"))
    return own.flops / full.flops


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"

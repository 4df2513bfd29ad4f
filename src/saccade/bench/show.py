"""Who looks at whom: the weights of a mechanism as a square of queries by keys. Cost: O(n^2) memory."""

from dataclasses import dataclass

import torch

from saccade.attention import MECHANISMS, Mechanism, to_mechanism
from saccade.attention.patterns import Pattern
from saccade.attention.weights import implied_weights
from saccade.bench.cost import cost
from saccade.errors import must_be
from saccade.shapes import Float, Tensor

LENGTHS = (64, 128, 256, 512, 1024, 2048)
LONGEST = 8192
HEAD_DIM = 64
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
    def kept(self) -> float:
        """The share of all pairs that have a weight."""
        return (self.weights != 0).double().mean().item()

    @property
    def facts(self) -> str:
        """Length, pairs that have a weight, and operations next to full attention."""
        kept, operations = _percent(self.kept), _percent(self.operations)
        return f"n = {self.length:,} · {kept} of n² pairs · {operations} of full's operations"

    @property
    def note(self) -> str:
        """What the shades mean."""
        if self.seed is None:
            return "filled: the query sees the key"
        return f"the fuller, the larger the weight; weights depend on the content, here random (seed {self.seed})"


def look(
    mechanism: str | Mechanism | Pattern,
    length: int | None = None,
    *,
    causal: bool = False,
    heads: int = 1,
    seed: int = 0,
) -> View:
    """The weights of a mechanism, which for softmax under a pattern show the pattern.

    Args:
        mechanism: a name, an expression, a spec or a pattern.
        length: number of queries and keys; `telling_length` if not given.
        causal: whether a query sees only keys up to its own position.
        heads: how many heads.
        seed: of the random inputs, where the weights depend on the content.

    Raises:
        ValueError: an unknown mechanism, no heads, or a length that is too small or too large to draw.
    """
    spec = to_mechanism(mechanism)
    length = telling_length(spec, causal=causal) if length is None else length
    if not 1 <= length <= LONGEST:
        raise ValueError(must_be("length", f"from 1 to {LONGEST:,}", length))
    if heads < 1:
        raise ValueError(must_be("heads", "at least 1", heads))
    shape = 1, heads, length, HEAD_DIM
    draws = torch.Generator().manual_seed(seed)
    # Equal scores give every key that a softmax sees the same weight: only the pattern is left.
    q, k = (torch.zeros(shape) if spec.claims.exact else torch.randn(shape, generator=draws) for _ in range(2))
    layer = spec.build(heads, HEAD_DIM, value_dim=length).eval()
    with torch.no_grad():
        v = torch.zeros(1, heads, length, length)
        weights = implied_weights(layer, {"q": q, "k": k, "v": v}, causal=causal)[0]
    return View(spec, causal, weights, _operations(spec, length, causal), None if spec.claims.exact else seed)


def gallery(length: int | None = None, *, causal: bool = False, heads: int = 1, seed: int = 0) -> list[View]:
    """A view of every mechanism of THE LIST with its default options, each at its own telling length if none is given.

    With `causal`, of those that can be causal. Arguments and errors as in `look`.
    """
    specs = [to_mechanism(GALLERY.get(name, name)) for name in MECHANISMS]
    shown = [spec for spec in specs if spec.claims.causal or not causal]
    return [look(spec, length, causal=causal, heads=heads, seed=seed) for spec in shown]


def telling_length(spec: Mechanism, *, causal: bool = False) -> int:
    """The shortest power of two at which a picture says something: large enough to leave most pairs out.

    A query should see six keys or more, so that strides show, and the whole should take at most 0.4 of full
    attention's operations. Where both cannot be, the first does not matter; where nothing is saved, 64.
    """
    sparse = [n for n in LENGTHS if _operations(spec, n, causal) <= 0.4]
    rich = [n for n in sparse if not 0 < cost(spec, n, heads=1, causal=causal).pairs < 6 * n]
    return min(rich or sparse or LENGTHS)


def _operations(spec: Mechanism, length: int, causal: bool) -> float:
    own, full = (cost(each, length, heads=1, head_dim=HEAD_DIM, causal=causal) for each in (spec, "full"))
    return own.flops / full.flops


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"

"""What a whole Transformer encoder costs with a mechanism in it, counted and not measured, and who takes the most.

A multiplication and an addition of a matrix product are two operations; everything else (norms, activations, softmax,
embedding) is not counted, as in `torch.utils.flop_counter`. *Attention* is what depends on the mechanism: the
products on queries, keys and values. The projections around it belong to the layer.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch

from saccade.attention import Mechanism, to_mechanism
from saccade.attention.patterns import Pattern
from saccade.bench.cost import cost
from saccade.errors import must_be, unknown, whole_number
from saccade.nn.multihead import MultiHeadAttention
from saccade.nn.stack import PLACES

LONGEST = 2**17
"""Where the search for the length from which attention dominates ends."""

ADAM_STATES = 3
"""Numbers for each weight besides itself: its gradient, and Adam's two averages."""


@dataclass(frozen=True)
class Shape:
    """The sizes of an encoder; those of the base model of Vaswani et al. (2017) if not given.

    Attributes:
        width: the model width.
        heads: attention heads; they divide the width.
        layers: how many layers.
        hidden: width inside the feed-forward networks, `4 * width` if not given.
        kv_heads: heads of keys and values, `heads` if not given.
        vocabulary: rows of an embedding in front of the encoder, if there is one.
        classes: outputs of a linear layer behind it, on one vector a sequence, if there is one.
        norm: `pre` (one more norm at the end) or `post`.
        dropout: whether training drops, which keeps what was dropped.
        extra_tokens: learned global tokens in front of the sequence.
    """

    width: int = 512
    heads: int = 8
    layers: int = 6
    hidden: int | None = None
    kv_heads: int | None = None
    vocabulary: int | None = None
    classes: int | None = None
    norm: str = "pre"
    dropout: bool = False
    extra_tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "heads", "layers", "hidden", "kv_heads", "vocabulary", "classes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(must_be(name, "at least 1", value))
        if self.width % self.heads:
            raise ValueError(must_be("width", f"a multiple of the {self.heads} heads", self.width))
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(must_be("kv_heads", f"a divisor of the {self.heads} heads", self.kv_heads))
        if self.norm not in PLACES:
            raise ValueError(unknown("norm", self.norm, PLACES))
        whole_number("extra_tokens", self.extra_tokens, 0)

    @property
    def inner(self) -> int:
        """Width inside the feed-forward networks."""
        return 4 * self.width if self.hidden is None else self.hidden


@dataclass(frozen=True)
class ModelCost:
    """What one forward pass of a model takes, all examples of the batch together.

    Attributes:
        attention: operations of the mechanism for the pairs that it lets through, in all layers.
        computed: operations of the mechanism that are carried out: as many, or more where whole tiles are computed.
        projections: operations of the projections to heads and back.
        feed_forward: operations of the feed-forward networks.
        rest: operations of the linear layer over the classes.
        bytes: read and written at least by all that is counted, at 4 bytes a number, every weight once.
        parameters: trained numbers.
        kept: bytes that training keeps in the encoder for the backward pass, at 4 bytes a number: the inputs of norms,
            projections, feed-forward products and activations, what the mechanism keeps, and what dropout drew.
            Without a key mask.
    """

    attention: int
    computed: int
    projections: int
    feed_forward: int
    rest: int
    bytes: int
    parameters: int
    kept: int

    @property
    def others(self) -> int:
        """Operations of everything but the mechanism."""
        return self.projections + self.feed_forward + self.rest

    @property
    def flops(self) -> int:
        """All operations that the model needs."""
        return self.attention + self.others

    @property
    def share(self) -> float:
        """The share of attention in all operations that the model needs."""
        return self.attention / self.flops

    @property
    def weight_bytes(self) -> int:
        """Memory of the parameters."""
        return 4 * self.parameters

    @property
    def training_bytes(self) -> int:
        """Memory of parameters, gradients, Adam's averages, and of what is kept."""
        return (1 + ADAM_STATES) * self.weight_bytes + self.kept


@dataclass(frozen=True)
class Dominance:
    """Where attention takes more operations than everything else in a model.

    Attributes:
        length: the shortest such input; `None` if there is none up to `LONGEST`.
        never: whether no longer one can be either, as attention grows in proportion to the length.
    """

    length: int | None
    never: bool = False


def layer_cost(
    mechanism: str | Mechanism | Pattern, n: int, shape: Shape | None = None, *, batch: int = 1, causal: bool = False
) -> ModelCost:
    """The cost of one encoder layer: attention with its projections, feed-forward network, two norms.

    Extra tokens go through it as all others do.

    Args:
        mechanism: a name, an expression, a spec or a pattern.
        n: positions of each example.
        shape: the sizes; `layers`, `vocabulary` and `classes` do not matter.
        batch: examples.
        causal: whether a position sees only itself and earlier ones.

    Raises:
        ValueError: an unknown mechanism, a size below 1, `causal` with a mechanism that does not claim it, or extra
            tokens before one that cannot have them.
    """
    shape = shape or Shape()
    spec = _checked(mechanism, batch, causal).behind(shape.extra_tokens)
    if n < 1:
        raise ValueError(must_be("n", "at least 1", n))
    n += shape.extra_tokens
    width, inner, tokens = shape.width, shape.inner, batch * n
    found = cost(spec, n, heads=shape.heads, head_dim=width // shape.heads, kv_heads=shape.kv_heads, causal=causal)
    weights, biases, own = _attention_parameters(spec, shape)
    projected = sum(sum(pair) for pair in weights)
    feed_forward = width * inner
    parameters = sum(a * b for a, b in weights) + biases + own + 2 * feed_forward + inner + width + 4 * width
    return ModelCost(
        attention=batch * found.flops,
        computed=batch * found.computed,
        projections=2 * tokens * sum(a * b for a, b in weights),
        feed_forward=4 * tokens * feed_forward,
        rest=0,
        bytes=4 * (tokens * (projected + 2 * (width + inner)) + parameters) + batch * found.bytes,
        parameters=parameters,
        kept=4 * tokens * (5 * width + 2 * inner + 4 + 2 * width * shape.dropout) + batch * found.kept,
    )


def model_cost(
    mechanism: str | Mechanism | Pattern, n: int, shape: Shape | None = None, *, batch: int = 1, causal: bool = False
) -> ModelCost:
    """The cost of an encoder, with embedding and classes if its shape has them. Arguments as of `layer_cost`.

    ```python
    model_cost("big_bird", 4096).share        # of attention in all operations
    ```

    Raises:
        ValueError: as `layer_cost`.
    """
    shape = shape or Shape()
    layer = layer_cost(mechanism, n, shape, batch=batch, causal=causal)
    width, classes, last_norm = shape.width, shape.classes or 0, shape.norm == "pre"
    head = (width + 1) * classes
    ends = 2 * width * last_norm + width * (shape.vocabulary or 0) + width * shape.extra_tokens + head
    # The last norm keeps all that it was given, but reads only what is no extra token.
    last_kept = batch * (width * (n + shape.extra_tokens) + 2 * n) * last_norm
    return ModelCost(
        attention=shape.layers * layer.attention,
        computed=shape.layers * layer.computed,
        projections=shape.layers * layer.projections,
        feed_forward=shape.layers * layer.feed_forward,
        rest=2 * batch * width * classes,
        bytes=shape.layers * layer.bytes + 4 * (head + batch * (width + classes) * (classes > 0)),
        parameters=shape.layers * layer.parameters + ends,
        kept=shape.layers * layer.kept + 4 * last_kept,
    )


def dominance(mechanism: str | Mechanism | Pattern, shape: Shape | None = None, *, causal: bool = False) -> Dominance:
    """The length from which attention takes more operations than the rest of a model, by the exact counts.

    Raises:
        ValueError: as `layer_cost`.
    """
    spec = _checked(mechanism, 1, causal)

    def at(n: int) -> ModelCost:
        return model_cost(spec, n, shape, causal=causal)

    high = LONGEST
    if at(high).attention <= at(high).others:
        return Dominance(None, never=_stays_below(*(at(LONGEST // part) for part in (4, 2, 1))))
    # From above, as whole chunks may dominate very short inputs too.
    while high > 1 and at(high // 2).attention > at(high // 2).others:
        high //= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if at(middle).attention > at(middle).others else (middle, high)
    return Dominance(high)


def _stays_below(quarter: ModelCost, half: ModelCost, whole: ModelCost) -> bool:
    """Whether attention has come to grow in proportion to the length, and no faster than the rest."""
    step = whole.attention - half.attention
    return step == 2 * (half.attention - quarter.attention) and step <= whole.others - half.others


def _checked(mechanism: str | Mechanism | Pattern, batch: int, causal: bool) -> Mechanism:
    spec = to_mechanism(mechanism)
    if batch < 1:
        raise ValueError(must_be("batch", "at least 1", batch))
    if causal and not spec.claims.causal:
        raise ValueError(must_be("causal", f"False, as {spec} does not claim causality", causal))
    return spec


@lru_cache(maxsize=64)
def _attention_parameters(spec: Mechanism, shape: Shape) -> tuple[tuple[tuple[int, int], ...], int, int]:
    """Sizes of each projection, of all their biases, and of what the mechanism has of its own: as they are built."""
    with torch.device("meta"):  # neither memory nor random numbers for weights that nobody uses
        attention = MultiHeadAttention(shape.width, shape.heads, spec, kv_heads=shape.kv_heads)
    projections = [*attention.projections.values(), attention.output]
    sizes = tuple((each.weight.shape[1], each.weight.shape[0]) for each in projections)
    biases = sum(outputs for _, outputs in sizes)
    everything = sum(each.numel() for each in attention.parameters())
    return sizes, biases, everything - biases - sum(a * b for a, b in sizes)

"""What the stacks of a Transformer are made of, encoder and decoder alike: residual sums, and layers in a row."""

from abc import ABC
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from torch import nn

from saccade.attention import Mechanism
from saccade.attention.mechanism import AttentionLayer
from saccade.attention.patterns import Pattern
from saccade.errors import must_be, unknown
from saccade.nn.multihead import AttentionState, MultiHeadAttention
from saccade.nn.norms import NORMS, normalised
from saccade.shapes import Bool, Float, Tensor

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}
PLACES = ("pre", "post")
"""Where a norm stands."""

Mechanisms = str | Mechanism | Pattern | Sequence[str | Mechanism | Pattern]
"""One mechanism for all layers, or a list of them, one a layer."""


class ResidualLayer(nn.Module, ABC):
    """A layer of sublayers, each with a residual sum around it, a norm, and dropout before the sum."""

    def __init__(self, norm: Literal["pre", "post"], dropout: float) -> None:
        super().__init__()
        self.pre_norm = norm == "pre"
        self.dropout = nn.Dropout(dropout)

    def before(
        self, x: Float[Tensor, "b n c"], norm: nn.Module, key_mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n c"]:
        """What a sublayer is given."""
        return normalised(norm, x, key_mask) if self.pre_norm else x

    def after(
        self,
        x: Float[Tensor, "b n c"],
        out: Float[Tensor, "b n c"],
        norm: nn.Module,
        key_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """What comes out of a sublayer together with what went in."""
        x = x + self.dropout(out)
        return x if self.pre_norm else normalised(norm, x, key_mask)


def feed_forward(width: int, hidden: int, activation: Literal["gelu", "relu"]) -> nn.Sequential:
    """Two linear layers and an activation between them, at each position alone."""
    return nn.Sequential(nn.Linear(width, hidden), ACTIVATIONS[activation](), nn.Linear(hidden, width))


def through(
    layers: Iterable[nn.Module], call: Callable[[Any, int, Tensor], tuple[Tensor, AttentionState]], x: Tensor
) -> tuple[Tensor, tuple[AttentionState, ...]]:
    """One layer after the other: the last one's output, and the states of all.

    Args:
        layers: the layers, from the bottom.
        call: what is done with a layer, its number and its input.
        x: the input of the first.
    """
    states = []
    for number, layer in enumerate(layers):
        x, state = call(layer, number, x)
        states.append(state)
    return x, tuple(states)


def share(layers: Iterable[MultiHeadAttention]) -> None:
    """Let layers of the same spec share what it says they share: with the first of them."""
    firsts: dict[Mechanism, AttentionLayer] = {}
    for attention in layers:
        first = firsts.setdefault(attention.mechanism, attention.layer)
        if first is not attention.layer:
            attention.layer.share_with(first)


def one_a_layer(name: str, mechanism: Mechanisms, layers: int) -> Sequence[str | Mechanism | Pattern]:
    """The mechanism of each layer.

    Raises:
        ValueError: a list of another length.
    """
    if isinstance(mechanism, str | Mechanism | Pattern):
        return [mechanism] * layers
    if len(mechanism) != layers:
        raise ValueError(must_be(name, f"one, or one for each of the {layers} layers", list(mechanism)))
    return mechanism


def check_stack(layers: int, hidden: int, norm: str, dropout: float, activation: str, normalisation: str) -> None:
    """Refuse what no stack can be built with.

    Raises:
        ValueError: a size below 1, an unknown name, or a share that is none.
    """
    for name, value in (("layers", layers), ("hidden", hidden)):
        if value < 1:
            raise ValueError(must_be(name, "at least 1", value))
    for name, value, known in (
        ("norm", norm, PLACES),
        ("activation", activation, ACTIVATIONS),
        ("normalisation", normalisation, NORMS),
    ):
        if value not in known:
            raise ValueError(unknown(name, value, known))
    if not 0 <= dropout < 1:
        raise ValueError(must_be("dropout", "at least 0 and below 1", dropout))


def check_state(state: Any, kind: type, layers: int) -> None:
    """Refuse a state that is not one of this kind of stack, with as many layers.

    Raises:
        TypeError: another kind of value.
        ValueError: of another number of layers.
    """
    if not isinstance(state, kind):
        constraint = f"a {kind.__name__} from initial_state, prefill or step"
        raise TypeError(must_be("state", constraint, type(state).__name__))
    if len(state.layers) != layers:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(must_be("state", f"of {layers} layers", len(state.layers)))  # pyright: ignore[reportAttributeAccessIssue]

"""What a mechanism is: a frozen spec that says what it promises and what it costs, and builds its layer.

A mechanism is one way to let queries look at keys. Its spec is a value: hashable, printed as an expression such as
`local(left=64)`, and rebuilt from it. The layer it builds is an `nn.Module` on queries, keys and values.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

import torch
from torch import nn

from saccade.attention.record import Record
from saccade.claims import Claims
from saccade.errors import must_be
from saccade.shapes import Bool, Float, Tensor


@dataclass(frozen=True)
class Cost:
    """What one forward pass of a mechanism takes for one example, all heads together.

    Attributes:
        flops: multiplications and additions of its matrix products, for the pairs that it lets through.
        pairs: query-key pairs that get a weight; 0 where no pair ever does.
        bytes: read and written at least, at 4 bytes a number: inputs, output, and states between them.
        wasted: further operations, spent on pairs that it hides, such as those of a tile that it needs in part.
        kept: bytes that training keeps for the backward pass, at 4 bytes a number: its inputs and what else it
            saves, but not its output, which whatever comes next keeps.
    """

    flops: int
    pairs: int
    bytes: int
    wasted: int = 0
    kept: int = 0

    @property
    def computed(self) -> int:
        """Multiplications and additions that are carried out."""
        return self.flops + self.wasted


class AttentionLayer(nn.Module, ABC):
    """A mechanism at work in one layer of a model."""

    @abstractmethod
    def forward(
        self,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b g k d"],
        v: Float[Tensor, "b g k e"],
        key_mask: Bool[Tensor, "b k"] | None = None,
        causal: bool = False,
        q_start: int = 0,
        record: Record | None = None,
    ) -> Float[Tensor, "b h q e"]:
        """What each query takes from the values.

        Args:
            q: queries.
            k: keys; their heads divide those of the queries. A layer with shared queries and keys does not read them.
            v: values.
            key_mask: True for real keys.
            causal: whether a query sees only keys up to its own position.
            q_start: the key position of the first query.
            record: takes what the mechanism has to tell, such as auxiliary `losses`, if it is asked for.

        Raises:
            ValueError, TypeError: inputs that do not belong together, or what the mechanism does not claim.
        """

    def after_step(self) -> None:
        """Move what training moves other than by gradients; the loop calls it once after each optimiser step.

        It does the same on every data-parallel worker. A forward pass changes nothing that an output depends on: in
        training it may note what this method needs.
        """

    def share_with(self, first: "AttentionLayer") -> None:
        """Use what `first` has instead of having the same, where the mechanism shares something between layers.

        An encoder calls it on every layer but the first of each spec. Most mechanisms share nothing.

        Args:
            first: the first layer of the same model and spec; it is left as it is.
        """
        return

    def for_weights(self) -> "AttentionLayer":
        """The layer that returns the weights of this one where the identity stands in the place of values: itself.

        A layer that mixes the channels of a value, and not only positions, gives one that does not.
        """
        return self

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Any:
        """The decoding state before the first token.

        Args:
            batch: number of examples.
            dtype: dtype of the queries to come, torch's default if not given; the state has at least fp32.
            device: where the state is kept.

        Returns:
            A NamedTuple of tensors, batch first.

        Raises:
            NotImplementedError: the mechanism does not claim `streaming`.
        """
        raise NotImplementedError(_not_streaming(self, "initial_state"))

    def prefill(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b g n d"],
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b h n e"], Any]:
        """The first tokens at once, in the causal form: their outputs, and the state behind them.

        Args:
            q: queries.
            k: keys of the same tokens.
            v: values.
            key_mask: True for real tokens.

        Raises:
            NotImplementedError: the mechanism does not claim `streaming`.
            ValueError, TypeError: inputs that do not belong together.
        """
        raise NotImplementedError(_not_streaming(self, "prefill"))

    def step(
        self,
        q: Float[Tensor, "b h 1 d"],
        k: Float[Tensor, "b g 1 d"],
        v: Float[Tensor, "b g 1 e"],
        state: Any,
        key_mask: Bool[Tensor, "b 1"] | None = None,
    ) -> tuple[Float[Tensor, "b h 1 e"], Any]:
        """The next token, in the causal form: its output, and the state behind it.

        Args:
            q: its query.
            k: its key.
            v: its value.
            state: the state behind the tokens before it, which is left as it is.
            key_mask: True where the token is real.

        Raises:
            NotImplementedError: the mechanism does not claim `streaming`.
            ValueError, TypeError: inputs or a state that do not belong together.
        """
        raise NotImplementedError(_not_streaming(self, "step"))


class Mechanism(ABC):
    """The promise of a mechanism. Subclasses are frozen dataclasses whose every option has a default."""

    name: ClassVar[str]
    family: ClassVar[str] = "others"
    """Under which heading the list of all mechanisms shows it."""
    inputs: ClassVar[tuple[str, ...]] = ("q", "k", "v")
    """What its layer is called with by keyword, of `input_sizes`; it reads nothing else."""

    @property
    @abstractmethod
    def claims(self) -> Claims:
        """What this instance promises; the contract tests hold it to each."""

    @abstractmethod
    def build(
        self,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        layer: int = 0,
    ) -> AttentionLayer:
        """The layer.

        Args:
            heads: query heads.
            head_dim: dim of one query or key.
            kv_heads: heads of keys and values, `heads` if not given.
            value_dim: dim of one value, `head_dim` if not given.
            layer: number of the layer in its model: what is drawn once is drawn anew for each.
        """

    @abstractmethod
    def cost(
        self,
        n_q: int,
        n_k: int,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        causal: bool = False,
    ) -> Cost:
        """What a forward pass takes for one example of `n_q` queries and `n_k` keys."""

    def behind(self, tokens: int) -> "Mechanism":
        """The mechanism in which global tokens, which see all and are seen by all, stand in front of what it was.

        Args:
            tokens: how many; with 0 it is the mechanism itself.

        Raises:
            ValueError: a mechanism that cannot have them, as this one unless it says otherwise.
        """
        if tokens == 0:
            return self
        constraint = "one in which all see all, such as full or linear, or a pattern, to stand behind extra tokens"
        raise ValueError(must_be("mechanism", constraint, str(self)))

    def __repr__(self) -> str:
        """The expression that rebuilds it: its name, and the options that are not the defaults."""
        options = []
        for field in fields(self):  # pyright: ignore[reportArgumentType] - subclasses are dataclasses
            default = field.default if field.default is not MISSING else field.default_factory()  # pyright: ignore[reportCallIssue]
            value = getattr(self, field.name)
            if value != default:
                options.append(f"{field.name}={value!r}")
        return f"{self.name}({', '.join(options)})" if options else self.name


def arguments(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a layer is called with, given the inputs that its mechanism names: `None` for queries or keys left out."""
    return {"q": None, "k": None, **inputs}


def input_sizes(heads: int, head_dim: int, kv_heads: int, value_dim: int) -> dict[str, tuple[int, int]]:
    """Heads and dim of every input that a mechanism may name: each is a projection `[b heads n dim]` of the tokens.

    `q` comes from the tokens that ask, all others from those that are asked. `gate` is one number for each key and
    key head.
    """
    keys, values = (kv_heads, head_dim), (kv_heads, value_dim)
    return {"q": (heads, head_dim), "k": keys, "v": values, "gate": (kv_heads, 1)}


def after_step(model: nn.Module) -> None:
    """Call `after_step` of every attention layer of a model: once after each optimiser step, in any training loop.

    A layer that holds layers of its own passes the call on to them itself.
    """
    layers = [module for module in model.modules() if isinstance(module, AttentionLayer)]
    inner = {part for layer in layers for part in layer.modules() if part is not layer}
    for layer in layers:
        if layer not in inner:
            layer.after_step()


def _not_streaming(layer: AttentionLayer, method: str) -> str:
    return f"{type(layer).__name__} does not claim streaming: it has no {method}"


def check_sizes(heads: int, head_dim: int, kv_heads: int | None, value_dim: int | None) -> tuple[int, int]:
    """Refuse sizes no layer can have; heads of the keys and dim of the values, filled in.

    Raises:
        ValueError: a size below 1, or key heads that do not divide the query heads.
    """
    kv_heads = heads if kv_heads is None else kv_heads
    value_dim = head_dim if value_dim is None else value_dim
    for name, value in (("heads", heads), ("head_dim", head_dim), ("value_dim", value_dim)):
        if value < 1:
            raise ValueError(must_be(name, "at least 1", value))
    if kv_heads < 1 or heads % kv_heads:
        raise ValueError(must_be("kv_heads", f"a divisor of the {heads} heads", kv_heads))
    return kv_heads, value_dim


def kept_bytes(n_q: int, n_k: int, heads: int, kv_heads: int, head_dim: int, value_dim: int) -> int:
    """Bytes of queries, keys, values, and one number a query: what a softmax keeps that is computed again.

    The dense backend keeps no more where values are as wide as keys: only then torch takes its fused kernel.
    """
    return 4 * (n_q * heads * (head_dim + 1) + n_k * kv_heads * (head_dim + value_dim))


def tensor_bytes(n_q: int, n_k: int, heads: int, kv_heads: int, head_dim: int, value_dim: int) -> int:
    """Bytes of queries, keys, values and output together."""
    return 4 * (n_q * heads + n_k * kv_heads) * (head_dim + value_dim)

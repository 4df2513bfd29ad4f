"""The Transformer decoder (Vaswani et al. 2017, section 3.1): it writes one sequence while it reads another.

Each layer attends to its own sequence, then across to the other one, then feeds forward. Any mechanism may do either:
in self-attention one that claims `causal`, across one that claims `cross`. A pattern across is meant in absolute
positions, as everywhere: query i of `Local(2)` sees the keys `i - 2 .. i + 2` of the other sequence.

What is read is projected once (`memory`). A decoding step then costs what one token costs: O(c^2) for its projections,
and what the mechanisms take for one query.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, cast

from torch import nn

from saccade.attention import Mechanism, to_mechanism
from saccade.attention.inputs import validate_key_mask
from saccade.attention.patterns import Pattern
from saccade.attention.record import Record
from saccade.errors import must_be
from saccade.nn.multihead import AttentionState, Memory, MultiHeadAttention
from saccade.nn.norms import NORMS, normalised, refuse_later_tokens
from saccade.nn.positions import Position, carried
from saccade.nn.stack import ResidualLayer, check_stack, check_state, feed_forward, one_a_layer, share, through
from saccade.shapes import Bool, Float, Tensor


class DecoderState(NamedTuple):
    """A decoder between one token and the next.

    Attributes:
        layers: the state of each layer's self-attention.
        memory: what each layer reads, which no step changes.
        position: where the next token stands, in every row of the batch.
    """

    layers: tuple[AttentionState, ...]
    memory: tuple[Memory, ...]
    position: int


class DecoderLayer(ResidualLayer):
    """Self-attention, attention across and a feed-forward network, each with a residual sum, a norm and dropout.

    Arguments are those of `Decoder`; `layer` is the number of this layer and `cross_layer` that of its attention
    across, another one so that what is drawn once is drawn anew.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        mechanism: Mechanism,
        cross_mechanism: Mechanism,
        norm: Literal["pre", "post"],
        dropout: float,
        activation: Literal["gelu", "relu"],
        layer: int,
        cross_layer: int,
        normalisation: str,
        position: Position | None,
    ) -> None:
        super().__init__(norm, dropout)
        self.attention = MultiHeadAttention(width, heads, mechanism, layer=layer, position=position)
        self.cross = MultiHeadAttention(width, heads, cross_mechanism, layer=cross_layer)
        self.feed_forward = feed_forward(width, hidden, activation)
        self.attention_norm = NORMS[normalisation](width)
        self.cross_norm = NORMS[normalisation](width)
        self.feed_forward_norm = NORMS[normalisation](width)

    def forward(
        self,
        x: Float[Tensor, "b t c"],
        memory: Memory,
        key_mask: Bool[Tensor, "b t"] | None = None,
        causal: bool = True,
        record: Record | None = None,
    ) -> Float[Tensor, "b t c"]:
        """The input with what it attends to, in itself and across, and what the feed-forward network makes of it."""
        own, across = (None, None) if record is None else (record.at("self"), record.at("cross"))
        source = self.before(x, self.attention_norm, key_mask)
        attended = self.attention(source, key_mask=key_mask, causal=causal, record=own)
        return self._after(x, attended, memory, 0, key_mask, across)

    def prefill(self, x: Float[Tensor, "b t c"], memory: Memory) -> tuple[Float[Tensor, "b t c"], AttentionState]:
        """The first tokens, and the state behind them."""
        attended, state = self.attention.prefill(self.before(x, self.attention_norm))
        return self._after(x, attended, memory, 0), state

    def step(
        self, x: Float[Tensor, "b 1 c"], memory: Memory, state: AttentionState
    ) -> tuple[Float[Tensor, "b 1 c"], AttentionState]:
        """The next token, and the state behind it."""
        attended, after = self.attention.step(self.before(x, self.attention_norm), state)
        return self._after(x, attended, memory, state.position), after

    def _after(
        self,
        x: Tensor,
        attended: Tensor,
        memory: Memory,
        q_start: int,
        key_mask: Tensor | None = None,
        record: Record | None = None,
    ) -> Tensor:
        x, norm = self.after(x, attended, self.attention_norm, key_mask), self.cross_norm
        across = self.cross(self.before(x, norm, key_mask), memory=memory, q_start=q_start, record=record)
        x, norm = self.after(x, across, norm, key_mask), self.feed_forward_norm
        return self.after(x, self.feed_forward(self.before(x, norm, key_mask)), norm, key_mask)


class Decoder(nn.Module):
    """Layers of self-attention, attention across and feed-forward networks.

    Args:
        width: the model width c, also that of the sequence that is read.
        heads: attention heads; they divide the width.
        layers: how many layers.
        hidden: width inside the feed-forward networks; `4 * width` if not given.
        mechanism: of self-attention: a name, expression, spec or pattern for all layers, or a list, one a layer.
        cross_mechanism: of attention across, in the same ways.
        norm: `"pre"` or `"post"`.
        dropout: share of each sublayer's output that is dropped in training, as in the paper.
        activation: of the feed-forward networks, `"gelu"` or `"relu"` (the paper's).
        normalisation: a name in `saccade.nn.norms.NORMS`: `"layer"` (the paper's), `"rms"` or `"batch"`.
        position: what places queries and keys of self-attention. Across, two sequences have no distance.

    Attributes:
        mechanisms: of self-attention, one a layer.
        cross_mechanisms: of attention across, one a layer.

    Raises:
        ValueError: a size, name or share that cannot be, another number of mechanisms than layers, a mechanism
            across that does not claim `cross`, or a position that a mechanism cannot carry.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        hidden: int | None = None,
        mechanism: str | Mechanism | Pattern | Sequence[str | Mechanism | Pattern] = "full",
        cross_mechanism: str | Mechanism | Pattern | Sequence[str | Mechanism | Pattern] = "full",
        norm: Literal["pre", "post"] = "pre",
        dropout: float = 0.0,
        activation: Literal["gelu", "relu"] = "gelu",
        normalisation: str = "layer",
        position: Position | None = None,
    ) -> None:
        super().__init__()
        hidden = 4 * width if hidden is None else hidden
        check_stack(layers, hidden, norm, dropout, activation, normalisation)
        self.width, self.normalisation = width, normalisation
        self.mechanisms = tuple(map(to_mechanism, one_a_layer("mechanism", mechanism, layers)))
        self.cross_mechanisms = tuple(map(to_mechanism, one_a_layer("cross_mechanism", cross_mechanism, layers)))
        for each in self.cross_mechanisms:
            if not each.claims.cross or each.claims.causal_only:
                reason = "one that claims cross attention, between sequences of different lengths"
                raise ValueError(must_be("cross_mechanism", reason, str(each)))
        for each in self.mechanisms:
            carried(position, each)
        sizes, rest = (width, heads, hidden), (normalisation, position)
        blocks = [
            DecoderLayer(*sizes, own, across, norm, dropout, activation, layer, layers + layer, *rest)
            for layer, (own, across) in enumerate(zip(self.mechanisms, self.cross_mechanisms, strict=True))
        ]
        share(block.attention for block in blocks)
        share(block.cross for block in blocks)
        self.layers = nn.ModuleList(blocks)
        # After the last residual sum, where pre-norm alone would leave the output without a norm.
        self.norm = NORMS[normalisation](width) if norm == "pre" else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "b t c"],
        context: Float[Tensor, "b n c"],
        key_mask: Bool[Tensor, "b t"] | None = None,
        context_mask: Bool[Tensor, "b n"] | None = None,
        causal: bool = True,
        record: Record | None = None,
    ) -> Float[Tensor, "b t c"]:
        """The sequence, each position knowing what it could see of itself and of the context.

        Args:
            x: embedded tokens that are written.
            context: what is read, such as the output of an encoder.
            key_mask: True for real tokens of `x`.
            context_mask: True for real tokens of the context. What stands behind either mask matters to no output
                at a real token and to no gradient.
            causal: whether a position of `x` sees only itself and earlier ones. A decoder that writes all positions at
                once needs the other.
            record: collects what it asks for from each layer: at `self` from attention to `x`, and at `cross` from
                attention to the context.

        Raises:
            ValueError: another width, `causal` with a mechanism that does not claim it, or while training with a
                normalisation that sees later tokens.
        """
        self._refuse(x)
        refuse_later_tokens(self.normalisation, causal, self.training)
        memory = self.memory(context, context_mask)
        if key_mask is not None:
            validate_key_mask(key_mask, (x.shape[0], x.shape[1]), x.device)
            x = x.masked_fill(~key_mask[..., None], 0)
        for layer, read in zip(self.layers, memory, strict=True):
            x = layer(x, read, key_mask, causal, record)
        return normalised(self.norm, x, key_mask)

    def memory(
        self, context: Float[Tensor, "b n c"], context_mask: Bool[Tensor, "b n"] | None = None
    ) -> tuple[Memory, ...]:
        """What each layer reads, projected once for a whole decoding.

        Args:
            context: what is read.
            context_mask: True for its real tokens.
        """
        return tuple(layer.cross.memory(context, context_mask) for layer in self._blocks)

    def initial_state(self, memory: tuple[Memory, ...]) -> DecoderState:
        """The state before the first token, which stands at position 0 in every row.

        Raises:
            NotImplementedError: a mechanism of self-attention does not claim `streaming`.
        """
        like = memory[0].inputs[0]
        states = (layer.attention.initial_state(like.shape[0], like.dtype, like.device) for layer in self._blocks)
        return DecoderState(tuple(states), memory, 0)

    def prefill(
        self, x: Float[Tensor, "b t c"], memory: tuple[Memory, ...]
    ) -> tuple[Float[Tensor, "b t c"], DecoderState]:
        """The first tokens at once: their outputs, and the state behind them.

        Args:
            x: embedded tokens, at positions `0 .. t - 1`.
            memory: what each layer reads.

        Raises:
            NotImplementedError: a mechanism of self-attention does not claim `streaming`.
            ValueError: another width.
        """
        self._refuse(x)
        out, states = through(self.layers, lambda layer, number, x: layer.prefill(x, memory[number]), x)
        return self.norm(out), DecoderState(states, memory, x.shape[1])

    def step(self, x: Float[Tensor, "b 1 c"], state: DecoderState) -> tuple[Float[Tensor, "b 1 c"], DecoderState]:
        """The next token: its output, and the state behind it.

        Args:
            x: the embedded token, at `state.position`.
            state: the state behind the tokens before it, which is left as it is.

        Raises:
            NotImplementedError: a mechanism of self-attention does not claim `streaming`.
            ValueError, TypeError: another width, more or fewer tokens than one, or a state of something else.
        """
        self._refuse(x)
        check_state(state, DecoderState, len(self.layers))
        out, states = through(
            self.layers, lambda layer, number, x: layer.step(x, state.memory[number], state.layers[number]), x
        )
        return self.norm(out), DecoderState(states, state.memory, state.position + 1)

    @property
    def _blocks(self) -> Iterable[DecoderLayer]:
        return cast("Iterable[DecoderLayer]", self.layers)

    def _refuse(self, x: Tensor) -> None:
        if x.ndim != 3 or x.shape[-1] != self.width:
            raise ValueError(must_be("x", f"of shape [batch, length, {self.width}] (the model width)", tuple(x.shape)))

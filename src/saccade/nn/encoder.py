"""The Transformer encoder (Vaswani et al. 2017), with any attention mechanism in each layer.

`norm="post"` is the paper's: normalise after each residual sum. `norm="pre"` normalises before each sublayer and
once at the end (Xiong et al. 2020), and trains without a long warm-up. What normalises is `normalisation`.

Extra tokens are learned vectors in front of the sequence that every token sees and that see every token, so that
attention which looks at little can pass on what it saw far away (ETC, Ainslie et al. 2020; Big Bird's ETC variant,
Zaheer et al. 2020). ETC's relative positions and its own projections for them are left out.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import nn
from torch.nn.functional import pad

from saccade.attention import Mechanism, to_mechanism
from saccade.attention.inputs import validate_key_mask
from saccade.attention.patterns import Pattern
from saccade.attention.record import Record
from saccade.errors import must_be, whole_number
from saccade.nn.multihead import AttentionState, MultiHeadAttention
from saccade.nn.norms import NORMS, normalised, refuse_later_tokens
from saccade.nn.positions import Position, carried
from saccade.nn.stack import ResidualLayer, check_stack, check_state, feed_forward, one_a_layer, share, through
from saccade.shapes import Bool, Float, Tensor


class EncoderState(NamedTuple):
    """A causal encoder between one token and the next.

    Attributes:
        layers: the state of each layer's attention.
        position: where the next token of the sequence stands, extra tokens not counted.
    """

    layers: tuple[AttentionState, ...]
    position: int


class EncoderLayer(ResidualLayer):
    """Self-attention and a feed-forward network, each with a residual sum, a norm, and dropout before the sum.

    Arguments are those of `Encoder`; `layer` is the number of this layer.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        mechanism: str | Mechanism | Pattern,
        norm: Literal["pre", "post"],
        dropout: float,
        activation: Literal["gelu", "relu"],
        layer: int,
        normalisation: str = "layer",
        position: Position | None = None,
    ) -> None:
        super().__init__(norm, dropout)
        self.attention = MultiHeadAttention(width, heads, mechanism, layer=layer, position=position)
        self.feed_forward = feed_forward(width, hidden, activation)
        self.attention_norm = NORMS[normalisation](width)
        self.feed_forward_norm = NORMS[normalisation](width)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        key_mask: Bool[Tensor, "b n"] | None = None,
        causal: bool = False,
        record: Record | None = None,
    ) -> Float[Tensor, "b n c"]:
        """The input with what it attends to, and then what the feed-forward network makes of it."""
        source = self.before(x, self.attention_norm, key_mask)
        return self._after(x, self.attention(source, key_mask=key_mask, causal=causal, record=record), key_mask)

    def prefill(
        self, x: Float[Tensor, "b n c"], key_mask: Bool[Tensor, "b n"] | None = None
    ) -> tuple[Float[Tensor, "b n c"], AttentionState]:
        """The first tokens, and the state behind them."""
        attended, state = self.attention.prefill(self.before(x, self.attention_norm, key_mask), key_mask)
        return self._after(x, attended, key_mask), state

    def step(
        self, x: Float[Tensor, "b 1 c"], state: AttentionState, key_mask: Bool[Tensor, "b 1"] | None = None
    ) -> tuple[Float[Tensor, "b 1 c"], AttentionState]:
        """The next token, and the state behind it."""
        attended, state = self.attention.step(self.before(x, self.attention_norm, key_mask), state, key_mask)
        return self._after(x, attended, key_mask), state

    def _after(self, x: Tensor, attended: Tensor, key_mask: Tensor | None) -> Tensor:
        x, norm = self.after(x, attended, self.attention_norm, key_mask), self.feed_forward_norm
        return self.after(x, self.feed_forward(self.before(x, norm, key_mask)), norm, key_mask)


class Encoder(nn.Module):
    """Layers of self-attention and feed-forward networks.

    Args:
        width: the model width c.
        heads: attention heads; they divide the width.
        layers: how many layers.
        hidden: width inside the feed-forward networks; `4 * width` if not given.
        mechanism: a name, expression, spec or pattern for all layers, or a list of them, one a layer.
        norm: `"pre"` or `"post"`.
        dropout: share of each sublayer's output that is dropped in training, as in the paper.
        activation: of the feed-forward networks, `"gelu"` or `"relu"` (the paper's).
        extra_tokens: learned global tokens that stand in front of the sequence inside the encoder. Through them packed
            sequences hear of each other.
        normalisation: a name in `saccade.nn.norms.NORMS`: `"layer"` (the paper's), `"rms"` or `"batch"`.
        position: what places queries and keys in each layer. What it adds to the input is left to whoever embeds the
            tokens, and a method that does nothing else is left out here.

    Attributes:
        mechanisms: the mechanism of each layer, as chosen. Within the layer it stands behind the extra tokens.
        extra: the learned vectors `[extra_tokens c]`, `None` without any. They have no position.

    Raises:
        ValueError: a size, name or share that cannot be, another number of mechanisms than layers, extra tokens
            before a mechanism that cannot have them, or a position that a mechanism cannot carry.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        hidden: int | None = None,
        mechanism: str | Mechanism | Pattern | Sequence[str | Mechanism | Pattern] = "full",
        norm: Literal["pre", "post"] = "pre",
        dropout: float = 0.0,
        activation: Literal["gelu", "relu"] = "gelu",
        extra_tokens: int = 0,
        normalisation: str = "layer",
        position: Position | None = None,
    ) -> None:
        super().__init__()
        hidden = 4 * width if hidden is None else hidden
        check_stack(layers, hidden, norm, dropout, activation, normalisation)
        whole_number("extra_tokens", extra_tokens, 0)
        self.width, self.extra_tokens, self.normalisation = width, extra_tokens, normalisation
        self.mechanisms = tuple(map(to_mechanism, one_a_layer("mechanism", mechanism, layers)))
        for each in self.mechanisms:
            carried(position, each, extra_tokens)
        blocks = [
            EncoderLayer(width, heads, hidden, each, norm, dropout, activation, layer, normalisation, position)
            for layer, each in enumerate(spec.behind(extra_tokens) for spec in self.mechanisms)
        ]
        share(block.attention for block in blocks)
        self.layers = nn.ModuleList(blocks)
        # After the last residual sum, where pre-norm alone would leave the output without a norm.
        self.norm = NORMS[normalisation](width) if norm == "pre" else nn.Identity()
        # As large as embedded tokens, among which they stand. Drawn last: the other weights are as without them.
        self.extra = nn.Parameter(torch.randn(extra_tokens, width)) if extra_tokens else None

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        key_mask: Bool[Tensor, "b n"] | None = None,
        causal: bool = False,
        record: Record | None = None,
    ) -> Float[Tensor, "b n c"]:
        """The sequence, each position knowing what it could see of the others.

        Args:
            x: embedded tokens.
            key_mask: True for real tokens. What stands at the others matters to no output at a real token and
                to no gradient.
            causal: whether a position sees only itself and earlier ones.
            record: collects what it asks for from each layer, such as their `weights`. Extra tokens come first in
                them: `[b h extra+n extra+n]`.

        Raises:
            ValueError: another width, `causal` with a mechanism that does not claim it, or while training with a
                normalisation that sees later tokens.
        """
        refuse_later_tokens(self.normalisation, causal, self.training)
        x, live = self._behind_extra(*self._hidden(x, key_mask))
        for layer in self.layers:
            x = layer(x, live, causal, record)
        return normalised(self.norm, x[:, self.extra_tokens :], key_mask)

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> EncoderState:
        """The state of the causal encoder before the first token; extra tokens are behind it already.

        Args:
            batch: number of examples, all of which begin at position 0.
            dtype: dtype of the tokens to come, that of the parameters if not given; the state has at least fp32.
            device: where the state is kept, beside the parameters if not given.

        Raises:
            NotImplementedError: a mechanism does not claim `streaming`.
        """
        whole_number("batch", batch)
        if self.extra is None:
            layers = cast("Iterable[EncoderLayer]", self.layers)
            return EncoderState(tuple(layer.attention.initial_state(batch, dtype, device) for layer in layers), 0)
        empty = self.extra.new_empty(batch, 0, self.width, dtype=dtype, device=device)
        return self.prefill(empty)[1]

    def prefill(
        self, x: Float[Tensor, "b n c"], key_mask: Bool[Tensor, "b n"] | None = None
    ) -> tuple[Float[Tensor, "b n c"], EncoderState]:
        """The first tokens at once, as with `causal=True`: their outputs, and the state behind them.

        Args:
            x: embedded tokens, at positions `0 .. n - 1`.
            key_mask: True for real tokens. Others keep their places.

        Raises:
            NotImplementedError: a mechanism does not claim `streaming`.
            ValueError: another width, or a mask that does not fit.
        """
        refuse_later_tokens(self.normalisation, causal=True, training=self.training)
        length = x.shape[1]
        x, live = self._behind_extra(*self._hidden(x, key_mask))
        out, states = through(self.layers, lambda layer, number, x: layer.prefill(x, live), x)
        return normalised(self.norm, out[:, self.extra_tokens :], key_mask), EncoderState(states, length)

    def step(
        self, x: Float[Tensor, "b 1 c"], state: EncoderState, key_mask: Bool[Tensor, "b 1"] | None = None
    ) -> tuple[Float[Tensor, "b 1 c"], EncoderState]:
        """The next token: its output, and the state behind it.

        Args:
            x: the embedded token, at `state.position`.
            state: the state behind the tokens before it, which is left as it is.
            key_mask: True where the token is real.

        Raises:
            NotImplementedError: a mechanism does not claim `streaming`.
            ValueError, TypeError: another width, more or fewer tokens than one, or a state of something else.
        """
        check_state(state, EncoderState, len(self.layers))
        refuse_later_tokens(self.normalisation, causal=True, training=self.training)
        x, key_mask = self._hidden(x, key_mask)
        out, states = through(self.layers, lambda layer, number, x: layer.step(x, state.layers[number], key_mask), x)
        return normalised(self.norm, out, key_mask), EncoderState(states, state.position + 1)

    def _hidden(self, x: Tensor, key_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The input with zeros behind the mask."""
        if x.ndim != 3 or x.shape[-1] != self.width:
            raise ValueError(must_be("x", f"of shape [batch, length, {self.width}] (the model width)", tuple(x.shape)))
        if key_mask is None:
            return x, None
        validate_key_mask(key_mask, (x.shape[0], x.shape[1]), x.device)
        return x.masked_fill(~key_mask[..., None], 0), key_mask

    def _behind_extra(self, x: Tensor, key_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The extra tokens and the sequence; they are real in every example, also in one that is all padding."""
        if self.extra is None:
            return x, key_mask
        extra = self.extra.to(x.dtype).expand(x.shape[0], -1, -1)
        key_mask = None if key_mask is None else pad(key_mask, (self.extra_tokens, 0), value=True)
        return torch.cat([extra, x], dim=1), key_mask

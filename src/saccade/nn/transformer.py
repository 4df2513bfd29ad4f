"""The Transformer encoder (Vaswani et al. 2017), with any attention mechanism in each layer.

`norm="post"` is the paper's: normalise after each residual sum. `norm="pre"` normalises before each sublayer and
once at the end (Xiong et al. 2020), and trains without a long warm-up. What normalises is `normalisation`.

Extra tokens are learned vectors in front of the sequence that every token sees and that see every token, so that
attention which looks at little can pass on what it saw far away (ETC, Ainslie et al. 2020; Big Bird's ETC variant,
Zaheer et al. 2020). ETC's relative positions and its own projections for them are left out.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import pad

from saccade.attention import Mechanism, to_mechanism
from saccade.attention.inputs import validate_key_mask
from saccade.attention.mechanism import AttentionLayer
from saccade.attention.patterns import Pattern
from saccade.attention.record import Record
from saccade.errors import must_be, unknown, whole_number
from saccade.nn.multihead import MultiHeadAttention
from saccade.nn.norms import NORMS, normalised, refuse_later_tokens
from saccade.nn.positions import Position, carried
from saccade.shapes import Bool, Float, Tensor

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}
PLACES = ("pre", "post")
"""Where a norm stands."""


class EncoderLayer(nn.Module):
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
        super().__init__()
        self.pre_norm = norm == "pre"
        self.attention = MultiHeadAttention(width, heads, mechanism, layer=layer, position=position)
        self.feed_forward = nn.Sequential(nn.Linear(width, hidden), ACTIVATIONS[activation](), nn.Linear(hidden, width))
        self.attention_norm = NORMS[normalisation](width)
        self.feed_forward_norm = NORMS[normalisation](width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        key_mask: Bool[Tensor, "b n"] | None = None,
        causal: bool = False,
        record: Record | None = None,
    ) -> Float[Tensor, "b n c"]:
        """The input with what it attends to, and then what the feed-forward network makes of it."""
        if self.pre_norm:
            x = x + self._attended(normalised(self.attention_norm, x, key_mask), key_mask, causal, record)
            return x + self.dropout(self.feed_forward(normalised(self.feed_forward_norm, x, key_mask)))
        x = normalised(self.attention_norm, x + self._attended(x, key_mask, causal, record), key_mask)
        return normalised(self.feed_forward_norm, x + self.dropout(self.feed_forward(x)), key_mask)

    def _attended(self, x: Tensor, key_mask: Tensor | None, causal: bool, record: Record | None) -> Tensor:
        return self.dropout(self.attention(x, key_mask=key_mask, causal=causal, record=record))


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
        for name, value in (("layers", layers), ("hidden", hidden)):
            if value < 1:
                raise ValueError(must_be(name, "at least 1", value))
        if norm not in PLACES:
            raise ValueError(unknown("norm", norm, PLACES))
        if normalisation not in NORMS:
            raise ValueError(unknown("normalisation", normalisation, NORMS))
        if activation not in ACTIVATIONS:
            raise ValueError(unknown("activation", activation, ACTIVATIONS))
        if not 0 <= dropout < 1:
            raise ValueError(must_be("dropout", "at least 0 and below 1", dropout))
        whole_number("extra_tokens", extra_tokens, 0)
        self.width, self.extra_tokens, self.normalisation = width, extra_tokens, normalisation
        self.mechanisms = tuple(map(to_mechanism, _one_a_layer(mechanism, layers)))
        for each in self.mechanisms:
            carried(position, each, extra_tokens)
        blocks = [
            EncoderLayer(width, heads, hidden, each, norm, dropout, activation, layer, normalisation, position)
            for layer, each in enumerate(spec.behind(extra_tokens) for spec in self.mechanisms)
        ]
        _share(block.attention for block in blocks)
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
        if x.ndim != 3 or x.shape[-1] != self.width:
            raise ValueError(must_be("x", f"of shape [batch, length, {self.width}] (the model width)", tuple(x.shape)))
        refuse_later_tokens(self.normalisation, causal, self.training)
        if key_mask is not None:
            validate_key_mask(key_mask, (x.shape[0], x.shape[1]), x.device)
            x = x.masked_fill(~key_mask[..., None], 0)
        x, live = self._behind_extra(x, key_mask)
        for layer in self.layers:
            x = layer(x, live, causal, record)
        return normalised(self.norm, x[:, self.extra_tokens :], key_mask)

    def _behind_extra(self, x: Tensor, key_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The extra tokens and the sequence; they are real in every example, also in one that is all padding."""
        if self.extra is None:
            return x, key_mask
        extra = self.extra.to(x.dtype).expand(x.shape[0], -1, -1)
        key_mask = None if key_mask is None else pad(key_mask, (self.extra_tokens, 0), value=True)
        return torch.cat([extra, x], dim=1), key_mask


def _share(layers: Iterable[MultiHeadAttention]) -> None:
    """Let layers of the same spec share what it says they share: with the first of them."""
    firsts: dict[Mechanism, AttentionLayer] = {}
    for attention in layers:
        first = firsts.setdefault(attention.mechanism, attention.layer)
        if first is not attention.layer:
            attention.layer.share_with(first)


def _one_a_layer(
    mechanism: str | Mechanism | Pattern | Sequence[str | Mechanism | Pattern], layers: int
) -> Sequence[str | Mechanism | Pattern]:
    if isinstance(mechanism, str | Mechanism | Pattern):
        return [mechanism] * layers
    if len(mechanism) != layers:
        raise ValueError(must_be("mechanism", f"one, or one for each of the {layers} layers", list(mechanism)))
    return mechanism

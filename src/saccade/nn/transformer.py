"""The Transformer of "Attention Is All You Need" (Vaswani et al. 2017): an encoder reads, a decoder writes.

The network alone, between embedded tokens and what an output layer reads; `saccade.models.Seq2Seq` puts both around
it. Given the same weights it equals `torch.nn.Transformer`, except that torch adds a norm behind post-norm layers,
which the paper does not have.

Cost: as its mechanisms, plus O((n + t) c^2) for projections and feed-forward networks.
"""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from saccade.attention import Mechanism
from saccade.attention.patterns import Pattern
from saccade.attention.record import Record
from saccade.nn.decoder import Decoder
from saccade.nn.encoder import Encoder
from saccade.nn.positions import Position
from saccade.shapes import Bool, Float, Tensor


class Transformer(nn.Module):
    """An encoder, and a decoder that reads its output.

    Args:
        width: the model width c.
        heads: attention heads; they divide the width.
        layers: how many layers the encoder has.
        decoder_layers: how many the decoder has; as many as the encoder if not given.
        hidden: width inside the feed-forward networks; `4 * width` if not given.
        mechanism: of the encoder: a name, expression, spec or pattern for all layers, or a list, one a layer.
        decoder_mechanism: of the decoder's self-attention, in the same ways.
        cross_mechanism: of the decoder's attention to the encoder's output, in the same ways.
        norm: `"pre"` or `"post"` (the paper's).
        dropout: share of each sublayer's output that is dropped in training, as in the paper.
        activation: of the feed-forward networks, `"gelu"` or `"relu"` (the paper's).
        normalisation: a name in `saccade.nn.norms.NORMS`: `"layer"` (the paper's), `"rms"` or `"batch"`.
        position: what places queries and keys of self-attention in both.

    Raises:
        ValueError: what `Encoder` or `Decoder` cannot be built with.
    """

    def __init__(
        self,
        width: int = 512,
        heads: int = 8,
        layers: int = 6,
        decoder_layers: int | None = None,
        hidden: int | None = None,
        mechanism: str | Mechanism | Pattern | Sequence[str | Mechanism | Pattern] = "full",
        decoder_mechanism: str | Mechanism | Pattern | Sequence[str | Mechanism | Pattern] = "full",
        cross_mechanism: str | Mechanism | Pattern | Sequence[str | Mechanism | Pattern] = "full",
        norm: Literal["pre", "post"] = "pre",
        dropout: float = 0.0,
        activation: Literal["gelu", "relu"] = "gelu",
        normalisation: str = "layer",
        position: Position | None = None,
    ) -> None:
        super().__init__()
        decoder_layers = layers if decoder_layers is None else decoder_layers
        ends = norm, dropout, activation
        self.encoder = Encoder(
            width, heads, layers, hidden, mechanism, *ends, normalisation=normalisation, position=position
        )
        mechanisms = decoder_mechanism, cross_mechanism
        self.decoder = Decoder(width, heads, decoder_layers, hidden, *mechanisms, *ends, normalisation, position)

    def forward(
        self,
        source: Float[Tensor, "b n c"],
        target: Float[Tensor, "b t c"],
        source_mask: Bool[Tensor, "b n"] | None = None,
        target_mask: Bool[Tensor, "b t"] | None = None,
        causal: bool = True,
        record: Record | None = None,
    ) -> Float[Tensor, "b t c"]:
        """The target sequence, each position knowing what it could see of itself and of the source.

        Args:
            source: embedded tokens that are read.
            target: embedded tokens that are written.
            source_mask: True for real tokens of the source.
            target_mask: True for real tokens of the target.
            causal: whether a position of the target sees only itself and earlier ones.
            record: collects what it asks for from each layer, at `encoder` and at `decoder`, there at `self` and at
                `cross`.

        Raises:
            ValueError: another width, or something a mechanism does not claim.
        """
        context = self.encoder(source, source_mask, record=None if record is None else record.at("encoder"))
        own = None if record is None else record.at("decoder")
        return self.decoder(target, context, target_mask, source_mask, causal, own)

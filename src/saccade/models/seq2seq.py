"""Sequence to sequence: the whole model of "Attention Is All You Need" (Vaswani et al. 2017).

One table of vectors embeds the source and the target and is the output layer (section 3.4), sinusoids are added, and
dropout stands where the paper has it: on those sums, and on what each sublayer adds (section 5.4).

Parameters: `BASE` has 63.1 million and `BIG` 214.2 million with the 37 000 tokens of the paper's shared vocabulary
(the table once, all weights and biases of projections and feed-forward networks, scales and shifts of norms; sinusoids
have none). The paper's table 3 says 65 and 213, which no one vocabulary gives: with 41 000 rows, the base model and
all seven that vary its sizes have what the table prints, to the last digit; the big one has 213 with 35 800.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import nn

from saccade.attention import reorder
from saccade.attention.record import Record
from saccade.errors import must_be
from saccade.models.pretrained import Pretrained
from saccade.models.sizes import check_placed, check_sizes, mechanisms_of, refuse_not_causal
from saccade.nn import DecoderState, TiedEmbedding, Transformer
from saccade.nn.norms import refuse_later_tokens
from saccade.nn.positions import to_position
from saccade.shapes import Bool, Float, Int, Tensor


@dataclass(frozen=True)
class Seq2SeqSettings:
    """The shape of a model that reads one sequence and writes another.

    Attributes:
        mechanism: of the encoder: a name or expression for all layers, or a list of them, one a layer.
        decoder_mechanism: of the decoder's self-attention, in the same ways.
        cross_mechanism: of the decoder's attention to the source, in the same ways.
        width: the model width.
        heads: attention heads; they divide the width.
        layers: how many the encoder has.
        decoder_layers: how many the decoder has.
        hidden: width inside the feed-forward networks.
        position: a name in `saccade.nn.POSITIONS`, for source and target each.
        norm: where norms stand, `pre` or `post` (the paper's).
        activation: of the feed-forward networks, `gelu` or `relu` (the paper's).
        dropout: share that is dropped of the embedded inputs and of each sublayer's output.
        max_length: the longest sequence, for positions that are learned.
        normalisation: what the norms are, a name in `saccade.nn.NORMS`.

    Raises:
        ValueError: a size, share or name that cannot be, or a mechanism where its claims do not allow it.
    """

    mechanism: str | tuple[str, ...] = "full"
    decoder_mechanism: str | tuple[str, ...] = "full"
    cross_mechanism: str | tuple[str, ...] = "full"
    width: int = 128
    heads: int = 4
    layers: int = 2
    decoder_layers: int = 2
    hidden: int = 512
    position: str = "sinusoidal"
    norm: Literal["pre", "post"] = "pre"
    activation: Literal["gelu", "relu"] = "gelu"
    dropout: float = 0.1
    max_length: int = 2048
    normalisation: str = "layer"

    def __post_init__(self) -> None:
        check_sizes(self, "width", "heads", "layers", "decoder_layers", "hidden", "max_length")
        reads = mechanisms_of("mechanism", self.mechanism, self.layers)
        writes = mechanisms_of("decoder_mechanism", self.decoder_mechanism, self.decoder_layers)
        check_placed(self.position, *reads, *writes)
        refuse_not_causal("decoder_mechanism", writes)
        refuse_later_tokens(self.normalisation, causal=True, training=True)
        for each in mechanisms_of("cross_mechanism", self.cross_mechanism, self.decoder_layers):
            if not each.claims.cross:
                raise ValueError(must_be("cross_mechanism", "one that claims cross attention", str(each)))


BASE = Seq2SeqSettings(
    width=512, heads=8, layers=6, decoder_layers=6, hidden=2048, norm="post", activation="relu", dropout=0.1
)
"""The base model of the paper's table 3."""

BIG = Seq2SeqSettings(
    width=1024, heads=16, layers=6, decoder_layers=6, hidden=4096, norm="post", activation="relu", dropout=0.3
)
"""The big model of the paper's table 3, as for English to German."""


class Source(NamedTuple):
    """What is read.

    Attributes:
        tokens: token ids, padded to one length.
        key_mask: True for real tokens; all are, if `None`.
    """

    tokens: Int[Tensor, "b n"]
    key_mask: Bool[Tensor, "b n"] | None = None


class Seq2Seq(Pretrained):
    """A Transformer that reads a source and scores the tokens of a target.

    Args:
        vocabulary_size: how many token ids there are, padding included: of source and target, or of the target alone.
        settings: the shape of the model.
        source_vocabulary_size: how many the source has, where its ids mean something else; it then has a table of its
            own.

    Raises:
        ValueError: sizes that do not fit together.
    """

    settings_class = Seq2SeqSettings

    def __init__(
        self,
        vocabulary_size: int,
        settings: Seq2SeqSettings | None = None,
        source_vocabulary_size: int | None = None,
    ) -> None:
        super().__init__()
        settings = settings or Seq2SeqSettings()
        self.settings = settings
        self.embedding = TiedEmbedding(vocabulary_size, settings.width)
        own = source_vocabulary_size
        self.source_embedding = None if own is None else TiedEmbedding(own, settings.width)
        place = settings.position, settings.width, settings.max_length
        self.source_position, self.target_position = to_position(*place), to_position(*place)
        self.dropout = nn.Dropout(settings.dropout)
        self.transformer = Transformer(
            settings.width,
            settings.heads,
            settings.layers,
            settings.decoder_layers,
            settings.hidden,
            settings.mechanism,
            settings.decoder_mechanism,
            settings.cross_mechanism,
            settings.norm,
            settings.dropout,
            settings.activation,
            normalisation=settings.normalisation,
            position=self.target_position,
        )

    @property
    def sizes(self) -> dict[str, int]:
        """The arguments beside the settings that it was built with."""
        sizes = {"vocabulary_size": len(self.embedding.weight)}
        own = self.source_embedding
        return sizes if own is None else sizes | {"source_vocabulary_size": len(own.weight)}

    def forward(
        self,
        source: Int[Tensor, "b n"],
        target: Int[Tensor, "b t"],
        source_mask: Bool[Tensor, "b n"] | None = None,
        target_mask: Bool[Tensor, "b t"] | None = None,
        record: Record | None = None,
    ) -> Float[Tensor, "b t v"]:
        """The logits of the token behind each position of the target.

        Args:
            source: token ids that are read.
            target: token ids that are written, from the first that is given (`bos`) to the last but one.
            source_mask: True for real tokens of the source; all are, if not given.
            target_mask: True for real tokens of the target. What stands behind either mask never matters.
            record: collects what it asks for, in the places that `Transformer` names.

        Raises:
            ValueError: no tokens, or more than a learned position table has.
        """
        read, written = self._source(source), self._target(target)
        return self.embedding.logits(self.transformer(read, written, source_mask, target_mask, record=record))

    def start(self, prompts: Int[Tensor, "b t"], source: Source) -> tuple[Float[Tensor, "b v"], DecoderState]:
        """Read the source and what each row of the target begins with.

        Args:
            prompts: the first tokens of every row, at least one (`bos`) and no padding.
            source: what is read: tokens and key mask, as many rows as prompts.

        Returns:
            The logits of the next token, and the state behind the prompts.

        Raises:
            NotImplementedError: a mechanism of the decoder does not claim `streaming`.
            ValueError, TypeError: no tokens, no source, or another number of rows.
        """
        if not isinstance(source, tuple) or len(source) != 2:
            raise TypeError(must_be("source", "a Source: tokens [b n] and their key mask", type(source).__name__))
        tokens, key_mask = source
        if len(tokens) != len(prompts):
            raise ValueError(must_be("source", f"of as many rows as the prompts, {len(prompts)}", len(tokens)))
        decoder = self.transformer.decoder
        memory = decoder.memory(self.transformer.encoder(self._source(tokens), key_mask), key_mask)
        x, state = decoder.prefill(self._target(prompts), memory)
        return self.embedding.logits(x[:, -1]), state

    def advance(self, tokens: Int[Tensor, " b"], state: DecoderState) -> tuple[Float[Tensor, "b v"], DecoderState]:
        """Read one more token of every row: the logits of the token after it, and the state behind it."""
        x, state = self.transformer.decoder.step(self._target(tokens[:, None], state.position), state)
        return self.embedding.logits(x[:, 0]), state

    def reorder(self, state: DecoderState, rows: Int[Tensor, " b2"]) -> DecoderState:
        """The states of other rows in place of these, with what they read."""
        return reorder(state, rows)

    def _source(self, tokens: Tensor) -> Tensor:
        _refuse("source", tokens)
        embedding = self.source_embedding or self.embedding
        return self.dropout(self.source_position.on_input(embedding(tokens)))

    def _target(self, tokens: Tensor, start: int = 0) -> Tensor:
        _refuse("target", tokens)
        return self.dropout(self.target_position.on_input(self.embedding(tokens), start))


def _refuse(name: str, tokens: Tensor) -> None:
    if tokens.ndim != 2 or tokens.shape[1] == 0:
        raise ValueError(must_be(name, "of shape [batch, length], not empty", tuple(tokens.shape)))

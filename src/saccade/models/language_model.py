"""A language model: what may come next, given what came before (a decoder-only Transformer).

Tokens become vectors of a table that is the output layer too; a causal encoder makes of each what the next one may be.
It decodes with states: a token costs what one token costs, and memory is that of the mechanism's own state.

With `causal=False` the same network scores every token from both sides, as a masked language model does (BERT, Devlin
et al. 2019).
"""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from saccade.attention import reorder
from saccade.attention.record import Record
from saccade.errors import must_be
from saccade.models.pretrained import Pretrained
from saccade.models.sizes import check_placed, check_sizes, mechanisms_of, refuse_not_causal
from saccade.nn import Encoder, EncoderState, TiedEmbedding
from saccade.nn.norms import refuse_later_tokens
from saccade.nn.positions import to_position
from saccade.shapes import Bool, Float, Int, Tensor


@dataclass(frozen=True)
class LanguageModelSettings:
    """The shape of a language model.

    Attributes:
        mechanism: a name or expression for all layers, or a list of them, one a layer.
        width: the model width.
        heads: attention heads; they divide the width.
        layers: how many there are.
        hidden: width inside the feed-forward networks.
        position: a name in `saccade.nn.POSITIONS`.
        norm: where norms stand, `pre` or `post`.
        activation: of the feed-forward networks, `gelu` or `relu`.
        dropout: share that is dropped of the embedded input and of each sublayer's output.
        max_length: the longest sequence, for positions that are learned.
        causal: whether a token is scored from those before it only.
        normalisation: what the norms are, a name in `saccade.nn.NORMS`.

    Raises:
        ValueError: a size, share or name that cannot be, or a mechanism that cannot be causal where that is asked for.
    """

    mechanism: str | tuple[str, ...] = "full"
    width: int = 128
    heads: int = 4
    layers: int = 2
    hidden: int = 512
    position: str = "sinusoidal"
    norm: Literal["pre", "post"] = "pre"
    activation: Literal["gelu", "relu"] = "gelu"
    dropout: float = 0.1
    max_length: int = 2048
    causal: bool = True
    normalisation: str = "layer"

    def __post_init__(self) -> None:
        check_sizes(self, "width", "heads", "layers", "hidden", "max_length")
        mechanisms = mechanisms_of("mechanism", self.mechanism, self.layers)
        check_placed(self.position, *mechanisms)
        if self.causal:
            refuse_not_causal("mechanism", mechanisms)
            refuse_later_tokens(self.normalisation, causal=True, training=True)


class LanguageModel(Pretrained):
    """A Transformer that scores the tokens of a vocabulary at every position.

    Args:
        vocabulary_size: how many token ids there are, padding included.
        settings: the shape of the model.

    Raises:
        ValueError: sizes that do not fit together.
    """

    settings_class = LanguageModelSettings

    def __init__(self, vocabulary_size: int, settings: LanguageModelSettings | None = None) -> None:
        super().__init__()
        settings = settings or LanguageModelSettings()
        self.settings = settings
        self.embedding = TiedEmbedding(vocabulary_size, settings.width)
        self.position = to_position(settings.position, settings.width, settings.max_length)
        self.dropout = nn.Dropout(settings.dropout)
        self.encoder = Encoder(
            settings.width,
            settings.heads,
            settings.layers,
            settings.hidden,
            settings.mechanism,
            settings.norm,
            settings.dropout,
            settings.activation,
            normalisation=settings.normalisation,
            position=self.position,
        )

    @property
    def sizes(self) -> dict[str, int]:
        """The arguments beside the settings that it was built with."""
        return {"vocabulary_size": len(self.embedding.weight)}

    def forward(
        self, tokens: Int[Tensor, "b n"], key_mask: Bool[Tensor, "b n"] | None = None, record: Record | None = None
    ) -> Float[Tensor, "b n v"]:
        """The logits at each position: of the next token if the model is causal, otherwise of the token there.

        Args:
            tokens: token ids, padded to one length.
            key_mask: True for real tokens; all are, if not given. What stands elsewhere never matters to them.
            record: collects what it asks for from each layer.

        Raises:
            ValueError: no tokens, or more than a learned position table has.
        """
        x = self.encoder(self._embedded(tokens), key_mask, self.settings.causal, record)
        return self.embedding.logits(x)

    def start(self, prompts: Int[Tensor, "b n"], source: None = None) -> tuple[Float[Tensor, "b v"], EncoderState]:
        """Read what each row begins with.

        Args:
            prompts: the first tokens of every row, at least one and no padding.
            source: nothing: a language model is conditioned on nothing else.

        Returns:
            The logits of the next token, and the state behind the prompts.

        Raises:
            NotImplementedError: a mechanism does not claim `streaming`.
            ValueError: no tokens, a source, or a model that is not causal.
        """
        if source is not None:
            raise ValueError(must_be("source", "None: a language model reads prompts only", type(source).__name__))
        if not self.settings.causal:
            raise ValueError(must_be("causal", "true in the settings of a model that writes", self.settings.causal))
        x, state = self.encoder.prefill(self._embedded(prompts))
        return self.embedding.logits(x[:, -1]), state

    def advance(self, tokens: Int[Tensor, " b"], state: EncoderState) -> tuple[Float[Tensor, "b v"], EncoderState]:
        """Read one more token of every row: the logits of the token after it, and the state behind it."""
        x, state = self.encoder.step(self._embedded(tokens[:, None], state.position), state)
        return self.embedding.logits(x[:, 0]), state

    def reorder(self, state: EncoderState, rows: Int[Tensor, " b2"]) -> EncoderState:
        """The states of other rows in place of these."""
        return reorder(state, rows)

    def _embedded(self, tokens: Tensor, start: int = 0) -> Tensor:
        if tokens.ndim != 2 or tokens.shape[1] == 0:
            raise ValueError(must_be("tokens", "of shape [batch, length], not empty", tuple(tokens.shape)))
        return self.dropout(self.position.on_input(self.embedding(tokens), start))

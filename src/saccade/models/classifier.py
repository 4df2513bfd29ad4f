"""One label a sequence: embedding, positions, encoder, pooling, and a linear layer over the classes.

In place of the encoder a bidirectional LSTM may stand, to compare with.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from saccade.attention.record import Record
from saccade.errors import must_be, unknown, whole_number
from saccade.models.networks.lstm import LSTMNetwork, LSTMSettings
from saccade.models.pretrained import Pretrained
from saccade.models.sizes import check_sizes, mechanisms_of
from saccade.nn import POSITIONS, Encoder, Position
from saccade.nn.pooling import POOLINGS
from saccade.nn.positions import check_carried, to_position
from saccade.shapes import Bool, Float, Int, Tensor

NETWORKS = ("transformer", "lstm")


@dataclass(frozen=True)
class ClassifierSettings:
    """The shape of a classifier.

    Attributes:
        mechanism: a name or expression for all layers, or a list of them, one a layer.
        width: the model width.
        heads: attention heads; they divide the width.
        layers: encoder layers.
        hidden: width inside the feed-forward networks.
        position: a name in `saccade.nn.POSITIONS`.
        norm: where norms stand, `pre` or `post`.
        normalisation: what they are, a name in `saccade.nn.NORMS`.
        pooling: `mean` over real tokens, the `first` of them, or their mean as a learned `query` weighs them.
        dropout: share that is dropped of the embedded input and of each sublayer's output.
        max_length: the longest sequence, for positions that are learned.
        extra_tokens: learned global tokens inside the encoder; pooling does not read them.
        network: `transformer`, or `lstm` for bidirectional LSTMs in its place: as many `layers`, each direction half
            the `width`, no mechanism and no extra tokens. Heads, `hidden`, norms and position are then not read.

    Raises:
        ValueError: a size, share or name that cannot be, extra tokens before a mechanism that cannot have them, a
            position that a mechanism cannot carry, or an LSTM with a mechanism.
    """

    mechanism: str | tuple[str, ...] = "full"
    width: int = 128
    heads: int = 4
    layers: int = 2
    hidden: int = 256
    position: str = "sinusoidal"
    norm: Literal["pre", "post"] = "pre"
    pooling: Literal["mean", "first", "query"] = "mean"
    dropout: float = 0.1
    max_length: int = 2048
    extra_tokens: int = 0
    normalisation: str = "layer"
    network: Literal["transformer", "lstm"] = "transformer"

    def __post_init__(self) -> None:
        # The parts refuse all this too, but are built only after the data is read.
        check_sizes(self, "width", "heads", "layers", "hidden", "max_length")
        whole_number("extra_tokens", self.extra_tokens, 0)
        for mechanism in mechanisms_of("mechanism", self.mechanism, self.layers):
            check_carried(POSITIONS[self.position], mechanism, self.extra_tokens)
            mechanism.behind(self.extra_tokens)
        for kind, name, known in (("pooling", self.pooling, POOLINGS), ("network", self.network, NETWORKS)):
            if name not in known:
                raise ValueError(unknown(kind, name, known))
        if self.network == "lstm":
            self._refuse_what_an_lstm_has_not()

    def _refuse_what_an_lstm_has_not(self) -> None:
        if self.mechanism != "full":
            raise ValueError(must_be("mechanism", "full, which is the default, as an LSTM has none", self.mechanism))
        if self.extra_tokens:
            raise ValueError(must_be("extra_tokens", "0, as an LSTM has none", self.extra_tokens))
        if self.width % 2:
            raise ValueError(must_be("width", "even, as each direction has half of it", self.width))


class SequenceClassifier(Pretrained):
    """A Transformer encoder that gives each sequence a score for each class.

    Args:
        vocabulary_size: how many token ids there are, padding included.
        classes: how many classes there are.
        settings: the shape of the model.

    Raises:
        ValueError: sizes that do not fit together.
    """

    settings_class = ClassifierSettings

    def __init__(self, vocabulary_size: int, classes: int, settings: ClassifierSettings | None = None) -> None:
        super().__init__()
        settings = settings or ClassifierSettings()
        for name, value in (("vocabulary_size", vocabulary_size), ("classes", classes)):
            if value < 1:
                raise ValueError(must_be(name, "at least 1", value))
        self.settings = settings
        self.embedding = nn.Embedding(vocabulary_size, settings.width)
        recurrent = settings.network == "lstm"
        self.position = to_position("none" if recurrent else settings.position, settings.width, settings.max_length)
        self.dropout = nn.Dropout(settings.dropout)
        self.encoder = _lstm(settings) if recurrent else _encoder(settings, self.position)
        self.pooling = POOLINGS[settings.pooling](settings.width)
        self.output = nn.Linear(settings.width, classes)

    @property
    def sizes(self) -> dict[str, int]:
        """The arguments beside the settings that it was built with."""
        return {"vocabulary_size": self.embedding.num_embeddings, "classes": self.output.out_features}

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        key_mask: Bool[Tensor, "b n"] | None = None,
        record: Record | None = None,
    ) -> Float[Tensor, "b v"]:
        """The logits of each class.

        Args:
            tokens: token ids, padded to one length.
            key_mask: True for real tokens; all are, if not given. What stands elsewhere never matters.
            record: collects what it asks for from each layer of the encoder, such as their `weights`.

        Raises:
            ValueError: no tokens, or a sequence longer than a learned position table.
        """
        if tokens.ndim != 2 or tokens.shape[1] == 0:
            raise ValueError(must_be("tokens", "of shape [batch, length], not empty", tuple(tokens.shape)))
        if key_mask is None:
            key_mask = torch.ones_like(tokens, dtype=torch.bool)
        x = self.dropout(self.position.on_input(self.embedding(tokens)))
        return self.output(self.pooling(self.encoder(x, key_mask, record=record), key_mask))


def _encoder(settings: ClassifierSettings, position: Position) -> Encoder:
    return Encoder(
        settings.width,
        settings.heads,
        settings.layers,
        settings.hidden,
        settings.mechanism,
        settings.norm,
        settings.dropout,
        extra_tokens=settings.extra_tokens,
        normalisation=settings.normalisation,
        position=position,
    )


def _lstm(settings: ClassifierSettings) -> LSTMNetwork:
    return LSTMSettings(settings.width // 2, settings.layers, settings.dropout).build(settings.width)

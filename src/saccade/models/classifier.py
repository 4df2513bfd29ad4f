"""One label a sequence: embedding, positions, encoder, pooling, and a linear layer over the classes.

Pooling is the mean over real tokens, or the first real token (as in BERT, Devlin et al. 2019).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from saccade.attention import to_mechanism
from saccade.attention.record import Record
from saccade.errors import must_be, unknown, whole_number
from saccade.models.pretrained import Pretrained
from saccade.nn import NORMS, POSITIONS, Encoder
from saccade.nn.positions import check_carried, to_position
from saccade.shapes import Bool, Float, Int, Tensor

POOLINGS = ("mean", "first")


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
        pooling: `mean` over real tokens, or the `first` of them.
        dropout: share that is dropped of the embedded input and of each sublayer's output.
        max_length: the longest sequence, for positions that are learned.
        extra_tokens: learned global tokens inside the encoder; pooling does not read them.

    Raises:
        ValueError: a size, share or name that cannot be, extra tokens before a mechanism that cannot have them, or a
            position that a mechanism cannot carry.
    """

    mechanism: str | tuple[str, ...] = "full"
    width: int = 128
    heads: int = 4
    layers: int = 2
    hidden: int = 256
    position: str = "sinusoidal"
    norm: Literal["pre", "post"] = "pre"
    pooling: Literal["mean", "first"] = "mean"
    dropout: float = 0.1
    max_length: int = 2048
    extra_tokens: int = 0
    normalisation: str = "layer"

    def __post_init__(self) -> None:
        # The parts refuse all this too, but are built only after the data is read.
        for name in ("width", "heads", "layers", "hidden", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(must_be(name, "at least 1", getattr(self, name)))
        if self.width % self.heads:
            raise ValueError(must_be("width", f"a multiple of the {self.heads} heads", self.width))
        if not 0 <= self.dropout < 1:
            raise ValueError(must_be("dropout", "at least 0 and below 1", self.dropout))
        whole_number("extra_tokens", self.extra_tokens, 0)
        if not isinstance(self.mechanism, str) and len(self.mechanism) != self.layers:
            constraint = f"one, or one for each of the {self.layers} layers"
            raise ValueError(must_be("mechanism", constraint, list(self.mechanism)))
        for kind, name, known in (("position", self.position, POSITIONS), ("normalisation", self.normalisation, NORMS)):
            if name not in known:
                raise ValueError(unknown(kind, name, known))
        for mechanism in (self.mechanism,) if isinstance(self.mechanism, str) else self.mechanism:
            check_carried(POSITIONS[self.position], to_mechanism(mechanism), self.extra_tokens)
            to_mechanism(mechanism).behind(self.extra_tokens)
        if self.pooling not in POOLINGS:
            raise ValueError(unknown("pooling", self.pooling, POOLINGS))


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
            extra_tokens=settings.extra_tokens,
            normalisation=settings.normalisation,
            position=self.position,
        )
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
        return self.output(pool(self.encoder(x, key_mask, record=record), key_mask, self.settings.pooling))


def pool(
    x: Float[Tensor, "b n c"], key_mask: Bool[Tensor, "b n"], pooling: Literal["mean", "first"]
) -> Float[Tensor, "b c"]:
    """One vector a sequence, from real tokens only; zeros where there are none."""
    x = x.masked_fill(~key_mask[..., None], 0)
    if pooling == "first":
        first = key_mask.int().argmax(1)
        return x[torch.arange(x.shape[0], device=x.device), first]
    return x.sum(1) / key_mask.sum(1, keepdim=True).clamp(min=1)

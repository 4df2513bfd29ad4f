"""One label a token: words and their characters as vectors, a network over them, and a linear layer over the tags.

The network is a Transformer, or what it is compared with: a feed-forward network over a window, or a bidirectional
LSTM. All read the same vectors, so that a table of results compares the networks alone.
"""

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from saccade.attention.record import Record
from saccade.errors import must_be, unknown, whole_number
from saccade.models.networks import NETWORKS, LSTMSettings, NetworkSettings, TransformerSettings, WindowNetworkSettings
from saccade.models.pretrained import Pretrained
from saccade.nn.word_embedding import WordEmbedding
from saccade.shapes import Bool, Float, Int, Tensor


@dataclass(frozen=True)
class WordSettings:
    """The shape of words' vectors.

    Attributes:
        width: of what is learned for a word.
        letter_width: of the vector of a character.
        features: width of what the characters of a word say; 0 leaves them unread.
        kernel: how many characters a feature looks at, an odd number.

    Raises:
        ValueError: a size that cannot be.
    """

    width: int = 128
    letter_width: int = 32
    features: int = 64
    kernel: int = 3

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("letter_width", 1), ("features", 0), ("kernel", 1)):
            whole_number(name, getattr(self, name), least)
        if self.kernel % 2 == 0:
            raise ValueError(must_be("kernel", "an odd number", self.kernel))


@dataclass(frozen=True)
class TaggerSettings:
    """The shape of a tagger.

    Attributes:
        network: a name in `saccade.models.networks.NETWORKS`; the settings of the others are not read.
        dropout: share that is dropped of words' vectors, and of what the network makes of them.
        words: the shape of words' vectors.
        transformer: the shape of the Transformer.
        window: the shape of the feed-forward network over a window.
        lstm: the shape of the bidirectional LSTM.

    Raises:
        ValueError: an unknown network, or a share that cannot be.
    """

    network: Literal["transformer", "window", "lstm"] = "transformer"
    dropout: float = 0.3
    words: WordSettings = field(default_factory=WordSettings)
    transformer: TransformerSettings = field(default_factory=TransformerSettings)
    window: WindowNetworkSettings = field(default_factory=WindowNetworkSettings)
    lstm: LSTMSettings = field(default_factory=LSTMSettings)

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise ValueError(unknown("network", self.network, NETWORKS))
        if not 0 <= self.dropout < 1:
            raise ValueError(must_be("dropout", "at least 0 and below 1", self.dropout))

    @property
    def chosen(self) -> NetworkSettings:
        """The settings of the network."""
        return getattr(self, self.network)


class Tagger(Pretrained):
    """A model that gives each word a score for each tag.

    Args:
        words: how many ids of words there are, padding included.
        characters: how many ids of characters there are, padding included.
        tags: how many tags there are.
        settings: the shape of the model.

    Raises:
        ValueError: sizes that do not fit together.
    """

    settings_class = TaggerSettings

    def __init__(self, words: int, characters: int, tags: int, settings: TaggerSettings | None = None) -> None:
        super().__init__()
        settings, shape = settings or TaggerSettings(), (settings or TaggerSettings()).words
        self._sizes = {"words": words, "characters": characters, "tags": tags}
        for name, size in self._sizes.items():
            whole_number(name, size)
        self.settings = settings
        self.embedding = WordEmbedding(words, characters, shape.width, shape.letter_width, shape.features, shape.kernel)
        self.dropout = nn.Dropout(settings.dropout)
        self.network = settings.chosen.build(self.embedding.width)
        self.output = nn.Linear(self.network.width, tags)

    @property
    def sizes(self) -> dict[str, int]:
        """The arguments beside the settings that it was built with."""
        return self._sizes

    def forward(
        self,
        words: Int[Tensor, "b n"],
        characters: Int[Tensor, "b n letters"],
        key_mask: Bool[Tensor, "b n"],
        record: Record | None = None,
    ) -> Float[Tensor, "b n v"]:
        """The logits of each tag at each word.

        Args:
            words: ids of words, padded on the right to one length.
            characters: ids of the characters of each word, 0 behind its last.
            key_mask: True at a real word. What stands elsewhere never matters to one.
            record: collects what it asks for from each layer of attention.

        Raises:
            ValueError: no words, or more than a learned position table has.
        """
        if words.ndim != 2 or words.shape[1] == 0:
            raise ValueError(must_be("words", "of shape [batch, length], not empty", tuple(words.shape)))
        x = self.dropout(self.embedding(words, characters))
        return self.output(self.dropout(self.network(x, key_mask, record)))

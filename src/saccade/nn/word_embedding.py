"""Words as vectors: one that is learned for each word, beside a summary of the characters it is written with.

The summary is a convolution over the characters with the maximum over all places (as in Ma and Hovy 2016, and Kim et
al. 2016): a feature speaks up wherever its few letters stand, at an end of the word too, as what is behind an end is
zeros. So a word that was never seen still has its affixes, capitals and digits. Cost: time and memory grow with words
times letters of the longest word.
"""

import torch
from torch import nn
from torch.nn.functional import relu

from saccade.errors import must_be, whole_number
from saccade.shapes import Bool, Float, Int, Tensor


def longest(features: Float[Tensor, "m f letters"], real: Bool[Tensor, "m letters"]) -> Float[Tensor, "m f"]:
    """The largest value of each feature over the real letters; zeros where there are none."""
    found = features.masked_fill(~real[:, None], -torch.inf).amax(-1)
    return found.masked_fill(~real.any(-1, keepdim=True), 0)


class CharacterSummary(nn.Module):
    """A vector for each word, from its characters.

    Args:
        characters: how many ids of characters there are, padding included.
        width: of a character's vector.
        features: width of the summary.
        kernel: how many characters a feature looks at, an odd number.
        pad: the id that stands behind the last character of a word.

    Raises:
        ValueError: a size below 1, or an even kernel.
    """

    def __init__(self, characters: int, width: int, features: int, kernel: int = 3, pad: int = 0) -> None:
        super().__init__()
        for name, size in (("characters", characters), ("width", width), ("features", features), ("kernel", kernel)):
            whole_number(name, size)
        if kernel % 2 == 0:
            raise ValueError(must_be("kernel", "an odd number", kernel))
        self.pad = pad
        self.embedding = nn.Embedding(characters, width)
        self.convolution = nn.Conv1d(width, features, kernel, padding=kernel // 2)

    def forward(self, characters: Int[Tensor, "m letters"]) -> Float[Tensor, "m f"]:
        """The summaries of some words; zeros where a word has no characters."""
        real = characters != self.pad
        if not characters.shape[1]:
            return self.embedding.weight.new_zeros(len(characters), self.convolution.out_channels)
        x = self.embedding(characters).masked_fill(~real[..., None], 0)
        return relu(longest(self.convolution(x.mT), real))


class WordEmbedding(nn.Module):
    """A vector for each word: what is learned for it, and what its characters say.

    Args:
        words: how many ids of words there are, padding included.
        characters: how many ids of characters there are, padding included.
        width: of what is learned for a word.
        letter_width: of a character's vector.
        features: of what characters say; 0 leaves them unread.
        kernel: how many characters a feature looks at, an odd number.

    Attributes:
        width: of the whole vector, `width + features`.

    Raises:
        ValueError: a size that cannot be.
    """

    def __init__(
        self, words: int, characters: int, width: int, letter_width: int = 32, features: int = 64, kernel: int = 3
    ) -> None:
        super().__init__()
        whole_number("words", words)
        whole_number("width", width)
        whole_number("features", features, 0)
        self.width = width + features
        self.words = nn.Embedding(words, width)
        self.characters = CharacterSummary(characters, letter_width, features, kernel) if features else None

    def forward(self, words: Int[Tensor, "b n"], characters: Int[Tensor, "b n letters"]) -> Float[Tensor, "b n c"]:
        """The vectors of words.

        Args:
            words: their ids.
            characters: the ids of the characters of each.
        """
        found = self.words(words)
        if self.characters is None:
            return found
        return torch.cat([found, self.characters(characters.flatten(0, 1)).view(*words.shape, -1)], -1)

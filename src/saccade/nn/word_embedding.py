"""Words as vectors: one that is learned for each word, beside a summary of the characters it is written with.

The summary is a convolution over the characters with the maximum over all places (as in Ma and Hovy 2016, and Kim et
al. 2016): a feature speaks up wherever its few letters stand, at an end of the word too, as what is behind an end is
zeros. So a word that was never seen still has its affixes, capitals and digits. Cost: time and memory grow with the
letters of all words together.
"""

import torch
from torch import nn
from torch.nn.functional import pad, relu

from saccade.errors import must_be, whole_number
from saccade.shapes import Float, Int, Tensor


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
        self.pad, self.gap = pad, kernel // 2
        self.embedding = nn.Embedding(characters, width)
        self.convolution = nn.Conv1d(width, features, kernel, padding=self.gap)

    def forward(self, characters: Int[Tensor, "m letters"]) -> Float[Tensor, "m f"]:
        """The summaries of some words; zeros where a word has no characters."""
        real, gap = characters != self.pad, self.gap
        # All words in one row, with as many zeros between two as a feature reaches: most words are shorter than the
        # longest, and its room would be five times as much to compute.
        row = pad(characters, (0, gap), value=self.pad)[pad(real, (0, gap), value=True)]
        letters = row != self.pad
        x = self.embedding(row).masked_fill(~letters[:, None], 0)
        found = relu(self.convolution(x.mT[None])[0].mT[letters])
        # A word with no letters keeps the zeros.
        words = torch.arange(len(real), device=real.device).repeat_interleave(real.sum(1))
        return found.new_zeros(len(real), found.shape[1]).scatter_reduce(
            0, words[:, None].expand_as(found), found, "amax"
        )


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

"""Tagged sentences as ids, and batches of them: words, the characters of each word, tags."""

from dataclasses import dataclass

import torch

from saccade.data.ragged import Ragged
from saccade.data.tokenizer import PAD
from saccade.shapes import Bool, Int, Tensor

# What torch's losses leave out by default.
NO_TAG = -100


@dataclass(frozen=True, eq=False)
class TaggedBatch:
    """Sentences side by side, padded on the right.

    Attributes:
        words: ids, int64.
        characters: ids of the characters of each word, int64; `<pad>` behind its last.
        key_mask: True at a real word.
        tags: ids, int64; `NO_TAG` where there is no word.
        rows: which examples of the split these are.
    """

    words: Int[Tensor, "b n"]
    characters: Int[Tensor, "b n letters"]
    key_mask: Bool[Tensor, "b n"]
    tags: Int[Tensor, "b n"]
    rows: Int[Tensor, " b"]

    def __len__(self) -> int:
        return len(self.words)

    def to(self, device: torch.device | str) -> "TaggedBatch":
        """The same batch on another device."""
        return TaggedBatch(*(each.to(device) for each in vars(self).values()))


@dataclass(frozen=True, eq=False)
class TaggedSplit:
    """Sentences of different lengths, not padded.

    Attributes:
        words: the ids of the words of each sentence.
        characters: the ids of the characters of each word, over all sentences.
        tags: the tag ids of each sentence.
    """

    words: Ragged
    characters: Ragged
    tags: Ragged

    def __len__(self) -> int:
        return len(self.words)

    @property
    def lengths(self) -> Int[Tensor, " n"]:
        """The words of each sentence, for `batch_plans`."""
        return self.words.lengths

    def batch(self, rows: Int[Tensor, " b"]) -> TaggedBatch:
        """Some sentences as a batch."""
        places, mask = self.words.places(rows)
        letters, _ = self.characters.padded(places.flatten(), PAD)
        return TaggedBatch(
            self.words.padded(rows, PAD)[0],
            letters.view(*places.shape, -1).masked_fill(~mask[..., None], PAD),
            mask,
            self.tags.padded(rows, NO_TAG)[0],
            rows,
        )

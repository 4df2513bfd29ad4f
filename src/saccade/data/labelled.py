"""Sequences with a label each: what every source hands over and every classifier trains on."""

from collections import Counter
from dataclasses import dataclass, field

from saccade.data.splitting import SPLITS
from saccade.data.vocabulary import Vocabulary
from saccade.errors import must_be
from saccade.shapes import Int, Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of different lengths, not padded.

    Attributes:
        sequences: the token ids of each example, int16.
        labels: the class of each example, int64, an index into `LabelledData.classes`.

    Raises:
        ValueError: if there are not as many labels as sequences.
    """

    sequences: tuple[Int[Tensor, " _"], ...]
    labels: Int[Tensor, " n"]

    def __post_init__(self) -> None:
        """Refuse examples without a label."""
        if len(self.sequences) != len(self.labels):
            raise ValueError(must_be("labels", f"{len(self.sequences)}, one a sequence", len(self.labels)))

    def __len__(self) -> int:
        return len(self.sequences)


@dataclass(frozen=True, eq=False)
class LabelledData:
    """A classification task: its examples, and what the numbers in them mean.

    Attributes:
        name: the source, as in the settings.
        vocabulary: what the tokens stand for.
        classes: what the labels stand for.
        train: the examples to learn from.
        validation: the examples to choose by.
        test: the examples to report on.
        origin: what only the source knows and a reader of the results should, such as the Python version.
    """

    name: str
    vocabulary: Vocabulary
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    origin: dict[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by name."""
        return {split: getattr(self, split) for split in SPLITS}

    @property
    def longest(self) -> int:
        """The tokens of the longest example."""
        return max(len(sequence) for split in self.splits.values() for sequence in split.sequences)

    def majority_share(self, split: Split) -> float:
        """The accuracy on `split` of always guessing the commonest class of `train`, from 0 to 1."""
        commonest = self.train.labels.bincount().argmax()
        return (split.labels == commonest).double().mean().item()

    @property
    def facts(self) -> dict[str, str]:
        """What is printed beside every result: the data in words and counts."""
        sizes = (f"{name} {len(split):,}" for name, split in self.splits.items())
        shares = (f"{name} {self.majority_share(split):.1%}" for name, split in self.splits.items())
        return {
            "data": self.name,
            **self.origin,
            "examples": ", ".join(sizes),
            "classes": self._count_classes(),
            "majority share": ", ".join(shares),
        }

    def _count_classes(self, most: int = 20) -> str:
        """The classes with their examples in all splits, the commonest first and at most so many."""
        counts = Counter(label for split in self.splits.values() for label in split.labels.tolist())
        named = [f"{self.classes[label]} {count:,}" for label, count in counts.most_common(most)]
        rest = len(self.classes) - len(named)
        return ", ".join(named) + (f" and {rest:,} more" if rest else "")

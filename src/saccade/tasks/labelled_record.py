"""What a run remembers of data whose examples have labels."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from saccade.data import LabelledData, Vocabulary, vocabulary_from_dict
from saccade.tasks.run_folder import DATA, DataRecord, damaged, read_data
from saccade.writing import write


@dataclass(frozen=True)
class LabelledRecord(DataRecord):
    """What a run remembers of labelled data.

    Attributes:
        vocabulary: what the tokens stand for.
        classes: what the labels stand for.
        commonest: the commonest label in training, which a model that knows nothing would guess.
        fingerprint: a digest of the training examples, equal only for equal data.
        facts: the data in words and counts.
    """

    vocabulary: Vocabulary
    classes: tuple[str, ...]
    commonest: int
    fingerprint: str
    facts: dict[str, str]

    @classmethod
    def of(cls, data: LabelledData) -> "LabelledRecord":
        """The record of some data."""
        digest = hashlib.sha256(data.train.labels.numpy().tobytes())
        for sequence in data.train.sequences:
            digest.update(len(sequence).to_bytes(8, "big") + sequence.numpy().tobytes())
        commonest = int(data.train.labels.bincount().argmax())
        return cls(data.vocabulary, data.classes, commonest, digest.hexdigest(), data.facts)

    def write(self, folder: Path) -> None:
        """Put it into the folder of the run."""
        state = {
            "vocabulary": self.vocabulary.to_dict(),
            "classes": self.classes,
            "commonest": self.commonest,
            "fingerprint": self.fingerprint,
            "facts": self.facts,
        }
        write(folder / DATA, json.dumps(state, indent=1))

    @classmethod
    def read(cls, folder: Path) -> "LabelledRecord":
        """The record of the data that a run was begun with.

        Raises:
            ValueError: it is missing or damaged.
        """
        state = read_data(folder)
        try:
            return cls(
                vocabulary_from_dict(state["vocabulary"]),
                tuple(state["classes"]),
                state["commonest"],
                state["fingerprint"],
                state["facts"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(folder / DATA, error) from error

"""What a run from sequence to sequence remembers of its data: its vocabulary, and by what it is recognised."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from saccade.data.pair_encoding import ParallelVocabulary
from saccade.data.parallel import ParallelData
from saccade.data.tokenizer import Identity
from saccade.tasks.run_folder import DATA, DataRecord, damaged, read_data
from saccade.writing import write

SIDES = ("source", "target")


@dataclass(frozen=True)
class PairRecord(DataRecord):
    """What a run remembers of its pairs.

    Attributes:
        vocabulary: what the tokens stand for.
        fingerprint: a digest of the tokens to train on.
        facts: the data in words and counts.
    """

    vocabulary: ParallelVocabulary
    fingerprint: str
    facts: dict[str, str]

    @classmethod
    def of(cls, data: ParallelData) -> "PairRecord":
        """The record of some pairs."""
        digest, train = hashlib.sha256(), data.train
        for side in SIDES:
            digest.update(getattr(data.vocabulary, side).identity.digest.encode())
        for numbers in (
            train.sources.values,
            train.sources.ends,
            train.targets.values,
            train.targets.ends,
            train.sides,
        ):
            digest.update(numbers.numpy().tobytes())
        return cls(data.vocabulary, digest.hexdigest(), data.facts)

    def write(self, folder: Path) -> None:
        """Put it into the folder of the run."""
        self.vocabulary.save(folder)
        identities = {side: asdict(getattr(self.vocabulary, side).identity) for side in SIDES}
        content = {"fingerprint": self.fingerprint, "facts": self.facts, "vocabulary": identities}
        write(folder / DATA, json.dumps(content, indent=1))


def read_vocabulary(folder: Path, write: tuple[str, ...]) -> ParallelVocabulary:
    """The vocabulary of a run.

    Args:
        folder: the run.
        write: the languages or columns that its model writes.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file is damaged, or the vocabulary is that of another run.
    """
    found, record = ParallelVocabulary.read(folder, write), read_data(folder)
    try:
        meant = {side: Identity(**record["vocabulary"][side]) for side in SIDES}
    except (KeyError, TypeError) as error:
        raise damaged(folder / DATA, error) from error
    for side, identity in meant.items():
        identity.check(getattr(found, side), f"{folder}, the {side}s")
    return found

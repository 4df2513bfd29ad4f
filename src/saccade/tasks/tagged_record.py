"""What a run remembers of sentences whose words have tags."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from saccade.data.tagged import TaggedData, TaggedVocabulary
from saccade.data.tagged_examples import TaggedSplit
from saccade.errors import must_be
from saccade.shapes import Int, Tensor
from saccade.tasks.run_folder import DATA, DataRecord, damaged, read_data
from saccade.writing import write


@dataclass(frozen=True)
class TaggedRecord(DataRecord):
    """What a run remembers of tagged sentences.

    Attributes:
        vocabulary: what the ids of words, characters and tags stand for.
        commonest: the commonest tag of each word in training, in the order of the ids: what a model would guess that
            reads nothing but the word.
        fingerprint: a digest of the training sentences, equal only for equal data.
        facts: the data in words and counts.
    """

    vocabulary: TaggedVocabulary
    commonest: tuple[int, ...]
    fingerprint: str
    facts: dict[str, str]

    @classmethod
    def of(cls, data: TaggedData) -> "TaggedRecord":
        """The record of some data."""
        vocabulary, train = data.vocabulary, data.train
        digest = hashlib.sha256(_digest(vocabulary).encode())
        for rows in (train.words, train.characters, train.tags):
            digest.update(rows.values.numpy().tobytes() + rows.ends.numpy().tobytes())
        guesses = commonest_tags(train, vocabulary.words.size, len(vocabulary.tags))
        return cls(vocabulary, tuple(guesses.tolist()), digest.hexdigest(), data.facts)

    def write(self, folder: Path) -> None:
        """Put it into the folder of the run."""
        self.vocabulary.save(folder)
        state = {"vocabulary": _digest(self.vocabulary), "commonest": self.commonest}
        # On one line: a number for each word would be as many lines.
        write(folder / DATA, json.dumps({"fingerprint": self.fingerprint, "facts": self.facts, **state}))

    @classmethod
    def read(cls, folder: Path) -> "TaggedRecord":
        """The record of the data that a run was begun with.

        Raises:
            ValueError, FileNotFoundError: it is missing, damaged, or its vocabulary is that of another run.
        """
        state, vocabulary = read_data(folder), TaggedVocabulary.read(folder)
        try:
            meant, commonest = state["vocabulary"], tuple(map(int, state["commonest"]))
            record = cls(vocabulary, commonest, state["fingerprint"], dict(state["facts"]))
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(folder / DATA, error) from error
        if meant != (found := _digest(vocabulary)):
            constraint = f"that of this run, with digest {meant[:12]}"
            raise ValueError(f"{folder}: {must_be('vocabulary', constraint, found[:12])}")
        return record


def commonest_tags(split: TaggedSplit, words: int, tags: int) -> Int[Tensor, " v"]:
    """The commonest tag of each word in some sentences; of a word that is not in them, the commonest of all.

    Args:
        split: the sentences.
        words: how many ids of words there are.
        tags: how many ids of tags there are.
    """
    pairs = split.words.values.long() * tags + split.tags.values
    counts = pairs.bincount(minlength=words * tags).view(words, tags)
    counts[counts.sum(1) == 0] = counts.sum(0)
    return counts.argmax(1)


def _digest(vocabulary: TaggedVocabulary) -> str:
    """What tells this vocabulary from another."""
    units = [vocabulary.words.identity.digest, vocabulary.characters.identity.digest]
    return hashlib.sha256(json.dumps([*units, vocabulary.tags, vocabulary.letters]).encode()).hexdigest()

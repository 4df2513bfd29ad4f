"""The files of a run, in the folder that `saccade train` writes.

| file | what it holds |
|---|---|
| `recipe.toml` | the settings, all of them |
| `data.json` | what tokens and labels mean, and by what the data is recognised |
| `log.jsonl` | a line for each logged step |
| `checkpoints/` | what a resume needs |
| `model.safetensors`, `model.json` | the trained model |
| `metrics.json` | its scores on the test split |
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from saccade.data import LabelledData, Vocabulary, vocabulary_from_dict
from saccade.errors import must_be
from saccade.writing import refuse_existing, write

RECIPE = "recipe.toml"
DATA = "data.json"
METRICS = "metrics.json"


@dataclass(frozen=True)
class DataRecord:
    """What a run remembers of its data.

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
    def of(cls, data: LabelledData) -> "DataRecord":
        """The record of some data."""
        digest = hashlib.sha256(data.train.labels.numpy().tobytes())
        for sequence in data.train.sequences:
            digest.update(len(sequence).to_bytes(8, "big") + sequence.numpy().tobytes())
        commonest = int(data.train.labels.bincount().argmax())
        return cls(data.vocabulary, data.classes, commonest, digest.hexdigest(), data.facts)


def create(folder: Path, recipe: str, record: DataRecord) -> None:
    """Begin a run: make its folder, with the recipe and the record of the data.

    Raises:
        FileExistsError: the folder exists; nothing in it is touched.
        OSError: it cannot be written, as on a full disk; nothing is left of it.
    """
    refuse_used(folder)
    folder.mkdir(parents=True)
    try:
        write(folder / RECIPE, recipe)
        state = {
            "vocabulary": record.vocabulary.to_dict(),
            "classes": record.classes,
            "commonest": record.commonest,
            "fingerprint": record.fingerprint,
            "facts": record.facts,
        }
        write(folder / DATA, json.dumps(state, indent=1))
    except OSError:
        shutil.rmtree(folder)
        raise


def refuse_used(folder: Path) -> None:
    """Refuse a folder, or file, that is already there, and say how to continue a run.

    Raises:
        FileExistsError: it is there.
    """
    refuse_existing(folder, f"choose another folder, or continue a run with: saccade train --resume {folder}")


def recipe_path(folder: Path) -> Path:
    """The recipe of a run.

    Raises:
        FileNotFoundError: the folder holds no run.
    """
    path = folder / RECIPE
    if not path.is_file():
        constraint = f"a folder that saccade train has written (with {RECIPE} in it)"
        raise FileNotFoundError(must_be("run", constraint, str(folder)))
    return path


def read_record(folder: Path) -> DataRecord:
    """The record of the data that a run was begun with.

    Raises:
        ValueError: it is missing or damaged.
    """
    path = folder / DATA
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        return DataRecord(
            vocabulary_from_dict(state["vocabulary"]),
            tuple(state["classes"]),
            state["commonest"],
            state["fingerprint"],
            state["facts"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} must be the record of a run's data: {error!r}") from error

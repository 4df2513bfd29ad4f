"""The files of a run, in the folder that `saccade train` writes.

| file | what it holds |
|---|---|
| `recipe.toml` | the settings, all of them |
| `data.json` | by what the data is recognised, and what labels mean |
| `tokenizer.json` | what tokens mean; of labelled data `data.json` says it |
| `log.jsonl` | a line for each logged step |
| `checkpoints/` | what a resume needs |
| `model.safetensors`, `config.json` | the trained model, as `save_pretrained` writes it |
| `metrics.json` | its scores on the test split |
"""

import json
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from saccade.errors import must_be
from saccade.writing import refuse_existing, write

RECIPE = "recipe.toml"
DATA = "data.json"
METRICS = "metrics.json"
MODEL = "model.safetensors"


class DataRecord(ABC):
    """What a run remembers of its data.

    Attributes:
        fingerprint: a digest of what is trained on, equal only for equal data. `data.json` holds it, too.
    """

    fingerprint: str

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Put it into the folder of the run.

        Raises:
            OSError: it could not be written.
        """


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
        record.write(folder)
    except OSError:
        shutil.rmtree(folder)
        raise


def refuse_used(folder: Path) -> None:
    """Refuse a folder, or file, that is already there, and say how to continue a run.

    Raises:
        FileExistsError: it is there.
    """
    refuse_existing(folder, f"choose another folder, or continue a run with: saccade train --resume {folder}")


def refuse_untrained(folder: Path) -> None:
    """Refuse a run that has no trained model yet, and say how to continue it.

    Raises:
        FileNotFoundError: there is none.
    """
    if not (folder / MODEL).is_file():
        advice = f"if training was stopped, continue it with: saccade train --resume {folder}"
        raise FileNotFoundError(f"no trained model in {folder} yet; {advice}")


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


def read_data(folder: Path) -> dict[str, Any]:
    """What stands in the record of the data that a run was begun with.

    Raises:
        ValueError: it is missing or damaged.
    """
    path = folder / DATA
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return dict(found, fingerprint=found["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> ValueError:
    """The error for a record that cannot be read."""
    return ValueError(f"{path} must be the record of a run's data: {error!r}")

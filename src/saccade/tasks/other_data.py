"""Other labelled data than those that a model was trained on, and its scores there."""

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from saccade import config
from saccade.data import SOURCES, DataSettings, kind_of
from saccade.errors import must_be
from saccade.tasks import classification
from saccade.tasks.classification import Recipe
from saccade.tasks.run_folder import recipe_path


def evaluate(
    folder: Path, source: str | None = None, overrides: Sequence[str] = (), split: str | None = None
) -> dict[str, object]:
    """Score the model of a run; arguments and errors as `other_data` and `saccade.tasks.classification.evaluate`."""
    return classification.evaluate(folder, other_data(folder, source, overrides), split)


def _refuse_other_split(own: DataSettings, changed: DataSettings) -> None:
    """Refuse what would draw another split of a run's own data: its test would have been trained on.

    Raises:
        ValueError: the message names the option.
    """
    # What is generated is new with each seed; files that were given are not split.
    kind, given = kind_of(own.source), own.validation is not None and own.test is not None
    for name in () if kind == "listops" or given else ("seed", "length", "per_class"):
        before, after = getattr(own, name), getattr(changed, name)
        if before != after:
            constraint = f"left at {before}: it decides which of the run's own examples were trained on"
            raise ValueError(must_be(f"data.{name}", constraint, after))


def _is_same_file(source: str, other: str) -> bool:
    """Whether two sources are names of one file."""
    return Path(other).is_file() and Path(source).is_file() and Path(source).samefile(other)


def other_data(folder: Path, source: str | None = None, overrides: Sequence[str] = ()) -> DataSettings | None:
    """Other data than a run's own, to score its model on; `None` where nothing is changed.

    Where the source changes, the run's options stay as far as the new source reads them. `validation` and `test` do
    not: they are parts of the old one.

    Args:
        folder: the run.
        source: another source.
        overrides: further changes, such as `"data.length=512"`.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: an unknown source, an override that is not of the data, or one that does not fit.
    """
    chosen = [*([] if source is None else [f"data.source={json.dumps(source)}"]), *overrides]
    for override in overrides:
        if not override.strip().startswith("data."):
            raise ValueError(must_be("--set", "a change of the data, such as data.length=512", override))
    path = recipe_path(folder)
    own, changed = config.load(path, Recipe).data, config.load(path, Recipe, chosen).data
    if _is_same_file(own.source, changed.source):
        # However it is spelled: the run's own file is never scored whole.
        changed = replace(changed, source=own.source)
    if changed.source == own.source:
        _refuse_other_split(own, changed)
        return changed if chosen else None
    given = {override.partition("=")[0].strip().removeprefix("data.") for override in overrides}
    kept = {"source", "seed", *SOURCES[kind_of(changed.source)].options} - {"validation", "test"} | given
    return DataSettings(**{each.name: getattr(changed, each.name) for each in fields(changed) if each.name in kept})

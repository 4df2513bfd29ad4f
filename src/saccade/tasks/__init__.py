"""Tasks: from a recipe to data, model, loss and score.

`TASKS` is the list. A new task is one new file and one line here.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from torch import nn

from saccade import config
from saccade.data import SOURCES, DataSettings, Split, kind_of
from saccade.errors import must_be, unknown
from saccade.tasks import classification
from saccade.tasks.classification import Recipe
from saccade.tasks.run_folder import recipe_path

__all__ = ["TASKS", "Recipe", "Task", "load_recipe", "other_data", "recipe_of"]


@dataclass(frozen=True)
class Task:
    """What a task can do.

    Attributes:
        recipe: the class of its recipes.
        train: train into a new folder.
        resume: continue the run in a folder.
        evaluate: score the model of a run.
        load: the model of a run and the examples of a split. The model takes `record=`.
    """

    recipe: type[Recipe]
    train: Callable[..., dict[str, object]]
    resume: Callable[..., dict[str, object]]
    evaluate: Callable[..., dict[str, object]]
    load: Callable[[Path, str], tuple[nn.Module, Split]]


TASKS: dict[str, Task] = {
    "classification": Task(
        Recipe, classification.train, classification.resume, classification.evaluate, classification.load
    ),
}


def load_recipe(path: Path | str | None, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file, or the defaults, with overrides such as `"model.width=64"`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown task or key, or a value that does not fit; the message says where.
    """
    source = config.read(path, overrides)
    name = source.values.get("task", "classification")
    if name not in TASKS:
        raise ValueError(f"{source.origin('task')}: {unknown('task', str(name), TASKS)}")
    return config.build(source, TASKS[name].recipe)


def recipe_of(folder: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a run.

    Raises:
        FileNotFoundError: the folder holds no run.
    """
    return load_recipe(recipe_path(folder), overrides)


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
    own, changed = recipe_of(folder).data, recipe_of(folder, chosen).data
    if changed.source == own.source:
        return changed if chosen else None
    given = {override.partition("=")[0].strip().removeprefix("data.") for override in overrides}
    kept = {"source", "seed", *SOURCES[kind_of(changed.source)].options} - {"validation", "test"} | given
    return DataSettings(**{each.name: getattr(changed, each.name) for each in fields(changed) if each.name in kept})

"""Tasks: from a recipe to data, model, loss and score.

`TASKS` is the list. A new task is one new file and one line here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from saccade import config
from saccade.data import Split
from saccade.errors import must_be, unknown
from saccade.tasks import classification, language_model, other_data
from saccade.tasks.classification import Recipe
from saccade.tasks.run_folder import recipe_path

__all__ = ["TASKS", "Recipe", "Task", "classification_recipe", "load_recipe", "recipe_of"]


@dataclass(frozen=True)
class Task:
    """What a task can do.

    Attributes:
        recipe: the class of its recipes, which name their task.
        train: train into a new folder.
        resume: continue the run in a folder.
        evaluate: score the model of a run, on the run's own data or another source, with overrides, in a split.
        load: the model of a run and the examples of a split, if they have labels. The model takes `record=`.
    """

    recipe: type
    train: Callable[..., dict[str, object]]
    resume: Callable[..., dict[str, object]]
    evaluate: Callable[[Path, str | None, Sequence[str], str | None], dict[str, object]]
    load: Callable[[Path, str], tuple[nn.Module, Split]] | None = None


TASKS: dict[str, Task] = {
    "classification": Task(
        Recipe, classification.train, classification.resume, other_data.evaluate, classification.load
    ),
    "language_model": Task(language_model.Recipe, language_model.train, language_model.resume, language_model.evaluate),
}


def load_recipe(path: Path | str | None, overrides: Sequence[str] = ()) -> Any:
    """The recipe in a TOML file, or the defaults of a classification, with overrides such as `"model.width=64"`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown task or key, or a value that does not fit; the message says where.
    """
    source = config.read(path, overrides)
    name = source.values.get("task", "classification")
    if name not in TASKS:
        raise ValueError(f"{source.origin('task')}: {unknown('task', str(name), TASKS)}")
    return config.build(source, TASKS[name].recipe)


def classification_recipe(path: Path | str | None, overrides: Sequence[str] = ()) -> Recipe:
    """The same for those who compare classifications, and can do nothing with another task."""
    recipe = load_recipe(path, overrides)
    if not isinstance(recipe, Recipe):
        raise ValueError(f"{path}: {must_be('task', 'classification here', recipe.task)}")
    return recipe


def recipe_of(folder: Path, overrides: Sequence[str] = ()) -> Any:
    """The recipe of a run.

    Raises:
        FileNotFoundError: the folder holds no run.
    """
    return load_recipe(recipe_path(folder), overrides)

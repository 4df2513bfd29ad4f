"""Tasks: from a recipe to data, model, loss and score.

`TASKS` is the list. A new task is one new file and one line here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from saccade import config
from saccade.data import Split
from saccade.errors import unknown
from saccade.tasks import classification
from saccade.tasks.classification import Recipe
from saccade.tasks.run_folder import recipe_path

__all__ = ["TASKS", "Recipe", "Task", "load_recipe", "recipe_of"]


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

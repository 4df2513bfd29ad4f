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
from saccade.tasks import (
    classification,
    continuation,
    filling,
    labelling,
    language_model,
    masked_language_model,
    other_data,
    rewriting,
    run,
    seq2seq,
    tag_lines,
    tagging,
)
from saccade.tasks.answers import Answer, GenerateOptions
from saccade.tasks.classification import Recipe
from saccade.tasks.run import Work
from saccade.tasks.run_folder import recipe_path
from saccade.training.progress import OnStep

__all__ = ["TASKS", "Recipe", "Task", "classification_recipe", "load_recipe", "recipe_of", "resume", "train"]


@dataclass(frozen=True)
class Task:
    """What a task can do.

    Attributes:
        recipe: the class of its recipes, which name their task.
        prepare: the data and the model of a recipe.
        evaluate: score the model of a run, on the run's own data or another source, with overrides, in a split.
        load: the model of a run and the examples of a split, if they have labels. The model takes `record=`.
        predict: what the model of a run says of lines, such as their labels.
        generate: what the model of a run writes to lines.
        shown: the scores that stand in tables of runs, the most important first.
    """

    recipe: type
    prepare: Callable[[Any], Work]
    evaluate: Callable[[Path, str | None, Sequence[str], str | None], dict[str, object]]
    load: Callable[[Path, str], tuple[nn.Module, Split]] | None = None
    predict: Callable[[Path], Answer] | None = None
    generate: Callable[[Path, GenerateOptions], Answer] | None = None
    shown: tuple[str, ...] = ("accuracy",)


TASKS: dict[str, Task] = {
    "classification": Task(
        Recipe,
        classification.prepare,
        other_data.evaluate,
        classification.load,
        predict=labelling.labelling,
        shown=("accuracy", "majority_share"),
    ),
    "language_model": Task(
        language_model.Recipe,
        language_model.prepare,
        language_model.evaluate,
        generate=continuation.continuation,
        shown=("nats_per_character", "bits_per_byte", "perplexity"),
    ),
    "masked_language_model": Task(
        masked_language_model.Recipe,
        masked_language_model.prepare,
        masked_language_model.evaluate,
        predict=filling.filling,
        shown=("accuracy", "perplexity"),
    ),
    "seq2seq": Task(
        seq2seq.Recipe,
        seq2seq.prepare,
        seq2seq.evaluate,
        generate=rewriting.rewriting,
        shown=("bleu", "sentence_bleu", "chrf", "ter", "per", "word_error", "perplexity"),
    ),
    "tagging": Task(
        tagging.Recipe,
        tagging.prepare,
        tagging.evaluate,
        predict=tag_lines.answers,
        shown=("accuracy", "f1", "unknown_accuracy", "majority_accuracy"),
    ),
}


def train(recipe: Any, out: Path, *, on_step: OnStep | None = None, quiet: bool = False) -> dict[str, object]:
    """Train into the new folder `out`, and score the model on the test split; errors as `saccade.tasks.run.train`."""
    return run.train(TASKS[recipe.task].prepare, recipe, out, on_step=on_step, quiet=quiet)


def resume(out: Path, *, on_step: OnStep | None = None, quiet: bool = False) -> dict[str, object]:
    """Continue the run in `out` from its latest checkpoint; errors as `saccade.tasks.run.resume`."""
    recipe = recipe_of(out)
    return run.resume(TASKS[recipe.task].prepare, recipe, out, on_step=on_step, quiet=quiet)


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

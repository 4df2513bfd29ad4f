"""A run, whatever its task: from a recipe to a folder with a trained model and its scores, and on after a stop."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from saccade import config, training
from saccade.data.splitting import SPLITS
from saccade.errors import must_be, unknown
from saccade.machine import commit, machine, peak_memory, versions
from saccade.nn.losses import Loss
from saccade.tasks import run_folder
from saccade.tasks.run_folder import DataRecord
from saccade.training import Trained
from saccade.training.process import process_state
from saccade.training.progress import OnStep
from saccade.writing import write


class Work(ABC):
    """A recipe with its data loaded and its model built.

    Attributes:
        recipe: what both were made from; `recipe.training` says how the model is trained.
        model: the model, with the weights that training starts from.
    """

    recipe: Any
    model: Any

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the data."""

    @property
    @abstractmethod
    def record(self) -> DataRecord:
        """What the run remembers of the data."""

    @abstractmethod
    def batches(self, start: int) -> Iterator[Any]:
        """The endless sequence of training batches from number `start` on, the same each time."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Loss:
        """The loss of a batch under the model, with the auxiliary losses of its mechanisms."""

    @abstractmethod
    def validate(self, model: nn.Module) -> float:
        """The score on the validation split; higher is better."""

    @abstractmethod
    def metrics(self) -> dict[str, object]:
        """The scores of the model on the test split."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model."""

    def fit(
        self,
        out: Path | None = None,
        *,
        resume: bool = False,
        on_step: OnStep | None = None,
        quiet: bool = False,
    ) -> Trained:
        """Train the model in place; arguments and errors as in `saccade.training.train`."""
        settings = self.recipe.training
        return training.train(
            self.model,
            self.loss,
            self.batches,
            settings,
            out,
            resume=resume,
            validate=self.validate if settings.validate_every else None,
            on_step=on_step,
            quiet=quiet,
        )


Recipe = TypeVar("Recipe")


def train(
    prepare: Callable[[Recipe], Work], recipe: Recipe, out: Path, *, on_step: OnStep | None = None, quiet: bool = False
) -> dict[str, object]:
    """Train into the new folder `out`, and score the model on the test split.

    Returns:
        The scores, the step that they are of, and the training speed.

    Raises:
        FileExistsError: `out` exists; nothing in it is touched.
        Interrupted, FloatingPointError, OSError: as `saccade.training.train`.
        ValueError: the data or the model cannot be as the recipe says.
    """
    process = process_state()
    if process.is_main_process:
        run_folder.refuse_used(out)
    work = prepare(recipe)
    next(iter(work.batches(0)))  # what gives no batch is refused before there is a folder
    if process.is_main_process:
        run_folder.create(out, config.dump(recipe), work.record)
    process.wait_for_everyone()
    return _finish(work, out, work.fit(out, on_step=on_step, quiet=quiet))


def resume(
    prepare: Callable[[Recipe], Work],
    recipe: Recipe,
    out: Path,
    *,
    on_step: OnStep | None = None,
    quiet: bool = False,
) -> dict[str, object]:
    """Continue the run in `out` from its latest checkpoint, as if it had never stopped; a finished one stays as it is.

    Raises:
        FileNotFoundError: no run, or no checkpoint, is there.
        ValueError: the checkpoint is damaged, or the data are no longer those the run began with.
        Interrupted, FloatingPointError, OSError: as `saccade.training.train`.
    """
    work = prepare(recipe)
    if work.record.fingerprint != run_folder.read_data(out)["fingerprint"]:
        constraint = "what the run began with, but the training examples have changed; start a new run"
        raise ValueError(must_be("data", constraint, work.name))
    trained = work.fit(out, resume=True, on_step=on_step, quiet=quiet)
    finished = out / run_folder.METRICS
    if not trained.step_seconds and finished.is_file() and (out / run_folder.RECORD).is_file():
        return json.loads(finished.read_text(encoding="utf-8"))
    return _finish(work, out, trained)


def scored_split(source: str | None, split: str | None) -> str:
    """What a trained model is scored on: a split of its own data, the test if none is named, or `all` of a source.

    Args:
        source: other data than the model's own.
        split: a split of its own.

    Raises:
        ValueError: both are given, or there is no such split.
    """
    if source is not None and split is not None:
        raise ValueError(must_be("split", "left out for a file, which is scored whole", split))
    if split is not None and split not in SPLITS:
        raise ValueError(unknown("split", split, SPLITS))
    return split or ("test" if source is None else "all")


def _finish(work: Work, out: Path, trained: Trained) -> dict[str, object]:
    """Write the trained model, its scores and what they belong to into the run."""
    if process_state().is_main_process:
        work.save(out)  # first: what was trained is kept, whatever becomes of its scores
    metrics = work.metrics() | {"step": trained.step, "steps_per_second": trained.steps_per_second}
    if process_state().is_main_process:
        write(out / run_folder.METRICS, json.dumps(metrics, indent=1))
        write(out / run_folder.RECORD, json.dumps(_record(work, out.name, trained, metrics), indent=1))
    return metrics


def _record(work: Work, name: str, trained: Trained, metrics: dict[str, object]) -> dict[str, object]:
    """A run in one value: what it was made from, what it cost, and what came of it.

    Training is timed with its validations, over all calls; the processor from the start of this process, loading and
    scoring included.
    """
    return {
        "run": name,
        "task": work.recipe.task,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "recipe": asdict(work.recipe),
        "parameters": sum(weight.numel() for weight in work.model.parameters()),
        "validation": trained.validation,
        "train_seconds": trained.seconds,
        "cpu_seconds": time.process_time(),
        "peak_bytes": peak_memory(),
        "processes": process_state().num_processes,
        "machine": machine(),
        "versions": {**versions(), "commit": commit()},
        "scores": metrics,
    }

"""One cell of a sweep: a training with its scores, or the speed and memory of a mechanism next to dense attention."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from saccade.bench.choice import BASELINE
from saccade.bench.measure import COUNTED, peak_memory, seconds_of
from saccade.bench.report import finite
from saccade.bench.sweep.plan import Cell, Plan
from saccade.bench.sweep.records import DONE, FAILED, SKIPPED, Record, write_record
from saccade.bench.trial import Trial
from saccade.data import LabelledData
from saccade.data import load as load_data
from saccade.machine import commit, machine, total_memory, versions
from saccade.tasks import Recipe
from saccade.tasks.classification import Prepared, Score, prepare, score
from saccade.tasks.labelled_record import LabelledRecord
from saccade.training import Interrupted
from saccade.training.process import process_state

OnStep = Callable[[int, float, float], object]


def run_cell(plan: Plan, cell: Cell, out: Path, on_step: OnStep | None = None) -> None:
    """Make the record of one cell and keep it; on Ctrl-C there is none. The threads of this process are set.

    Whatever fails is the failure of this cell alone, and its record says what it was.
    """
    torch.set_num_threads(plan.settings(cell)["threads"])
    record = outline(plan, cell)
    started = time.perf_counter()
    try:
        recipe = plan.located(plan.recipe(cell))
        found = _speed(plan, cell, recipe) if cell.seed is None else _training(recipe, on_step)
        record |= {"status": DONE, "reason": None, **found}
    except (Interrupted, KeyboardInterrupt):
        return
    except FileNotFoundError as error:
        record |= {"status": SKIPPED, "reason": _reason(plan, error)}
    except Exception as error:  # any failure of a mechanism, an exhausted memory included
        record |= {"status": FAILED, "reason": f"{type(error).__name__}: {_reason(plan, error)}"}
    write_record(out, {**record, "seconds": time.perf_counter() - started})


def outline(plan: Plan, cell: Cell) -> Record:
    """What a record says before anything was found."""
    return {
        "task": cell.task,
        "mechanism": cell.mechanism,
        "seed": cell.seed,
        "status": FAILED,
        "reason": None,
        "settings": finite(plan.settings(cell)),
        "machine": {**machine(), "memory_bytes": total_memory()},
        "versions": {**versions(), "commit": commit()},
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _training(recipe: Recipe, on_step: OnStep | None) -> dict[str, Any]:
    """Trained from the seed and scored; validation tells the best, the test what they are worth."""
    data = load_data(recipe.data)
    prepared = prepare(recipe, data)
    started = time.perf_counter()
    trained = prepared.fit(quiet=True, on_step=on_step)
    seconds = time.perf_counter() - started
    found = {name: _score(prepared, name) for name in ("validation", "test")}
    return {
        **_facts(prepared),
        "test_accuracy": found["test"].accuracy,
        "test_loss": found["test"].loss,
        "test_examples": found["test"].examples,
        "validation_accuracy": found["validation"].accuracy,
        "validation_examples": found["validation"].examples,
        "majority_share": data.majority_share(data.test),
        "train_loss": trained.loss,
        "train_seconds": seconds,
    }


def _speed(plan: Plan, cell: Cell, recipe: Recipe) -> dict[str, Any]:
    """Rounds in which the mechanism and dense attention take turns at a training step and a forward pass."""
    data, device = load_data(recipe.data), torch.device(process_state().device or "cpu")
    dense = replace(recipe, model=replace(recipe.model, mechanism=BASELINE))
    sides = {"": recipe, "dense_": dense}
    found: dict[str, Any] = {
        f"{side}peak_bytes": _peak(own, data, device) if device.type in COUNTED else None for side, own in sides.items()
    }
    trials = {side: Trial(prepare(own, data), device) for side, own in sides.items()}
    found |= {f"{side}{what}_seconds": [] for side in sides for what in ("step", "inference")}
    for number in range(plan.frame.rounds + 1):
        for side, trial in trials.items():
            for what, work in (("step", trial.step), ("inference", trial.infer)):
                seconds = seconds_of(work, device)
                if number > 0:  # the first round warms up
                    found[f"{side}{what}_seconds"].append(seconds)
    tokens = list(trials[""].batch.tokens.shape)
    return {**_facts(prepare(recipe, data)), "batch_tokens": tokens, **found}


def _peak(recipe: Recipe, data: LabelledData, device: torch.device) -> int:
    """From building the model to where the optimiser has its state and gradients come on top of it."""

    def two_steps() -> None:
        trial = Trial(prepare(recipe, data), device)
        trial.step()
        trial.step()

    return peak_memory(two_steps, device)


def _facts(prepared: Prepared) -> dict[str, Any]:
    """Of data and model. The name of the data would tell where somebody keeps them."""
    facts = {name: value for name, value in prepared.data.facts.items() if name != "data"}
    return {
        "parameters": sum(weight.numel() for weight in prepared.model.parameters()),
        "data_facts": facts,
        "data_fingerprint": LabelledRecord.of(prepared.data).fingerprint,
    }


def _score(prepared: Prepared, split: str) -> Score:
    data = prepared.data
    return score(prepared.model, data.splits[split], data.vocabulary.pad_id, prepared.recipe.training.batch_size)


def _reason(plan: Plan, error: Exception) -> str:
    """The first line of an error, without the place of the data."""
    lines = str(error).strip().splitlines() or [""]
    folder = plan.frame.data_folder
    return lines[0].replace(folder, "{data_folder}") if len(folder) > 1 else lines[0]

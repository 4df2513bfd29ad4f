"""Checkpoints: everything an exact resume needs, written so that no failure can harm an earlier one.

A checkpoint is a folder `step-00000200`. It is written under another name, checked to be on the disk, and
then renamed, so a folder of that name is complete. Its `checkpoint.json` lists a digest of each file: what
was damaged later is refused rather than loaded.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from saccade.errors import must_be
from saccade.shapes import Tensor

KEPT = 2
_MANIFEST = "checkpoint.json"
_BEST = "best.safetensors"
_FULL = 2**20


@dataclass(frozen=True)
class Progress:
    """What a run knows beside the weights, the optimiser and the random generators.

    Attributes:
        step: optimiser steps done.
        best_step: the step with the best validation score, 0 before the first validation.
        best_score: that score.
        best_weights: the model of that step.
    """

    step: int = 0
    best_step: int = 0
    best_score: float | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def could_not_write(path: Path, run: Path, error: Exception) -> OSError:
    """The error for a file or folder of a run that could not be written, as on a full disk."""
    reason = str(error)
    if isinstance(error, OSError) and error.errno:
        reason = os.strerror(error.errno)
    elif shutil.disk_usage(path.parent).free < _FULL:
        # torch says only that a position in its file is not the expected one.
        reason = "the disk is full"
    advice = f"nothing written earlier is lost; make room, then continue with: saccade train --resume {run}"
    return OSError(f"could not write {path}: {reason} ({advice})")


def write(accelerator: Accelerator, folder: Path, progress: Progress) -> Path:
    """Write the checkpoint of `progress.step` into `folder`, keep the one before it, and remove older ones.

    Raises:
        OSError: it could not be written; the earlier checkpoints are untouched.
    """
    final = folder / f"step-{progress.step:08d}"
    partial = folder / f"partial-{progress.step:08d}"
    try:
        if accelerator.is_main_process:
            _remove_partial(folder)
            partial.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            _finish(partial, progress, accelerator.num_processes)
            partial.rename(final)
    # torch and safetensors report a full disk as errors of their own.
    except (OSError, RuntimeError, SafetensorError) as error:
        failure = could_not_write(final, folder.parent, error)
        _remove_partial(folder)
        raise failure from error
    except BaseException:
        _remove_partial(folder)
        raise
    if accelerator.is_main_process:
        for old in written(folder)[:-KEPT]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return final


def written(folder: Path) -> list[Path]:
    """The complete checkpoints of a folder, earliest first."""
    return sorted(path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal())


def restore(accelerator: Accelerator, folder: Path) -> Progress:
    """Load the latest checkpoint into everything that `accelerator` has prepared.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or belongs to another model or number of processes; the message says what
            to do.
    """
    if not (checkpoints := written(folder)):
        raise FileNotFoundError(f"no checkpoint in {folder}: nothing to resume; start the run anew")
    latest = checkpoints[-1]
    manifest = _checked_manifest(latest)
    if manifest["processes"] != accelerator.num_processes:
        wanted = f"{manifest['processes']}, as the run at {latest} had"
        raise ValueError(must_be("number of processes", wanted, accelerator.num_processes))
    try:
        accelerator.load_state(str(latest))
    except RuntimeError as error:
        raise ValueError(f"checkpoint {latest} must belong to this model: {error}") from error
    best = load_file(latest / _BEST) if manifest["best_step"] else {}
    return Progress(manifest["step"], manifest["best_step"], manifest["best_score"], best)


def _finish(partial: Path, progress: Progress, processes: int) -> None:
    if progress.best_step:
        save_file(progress.best_weights, partial / _BEST)
    manifest = {
        "step": progress.step,
        "best_step": progress.best_step,
        "best_score": progress.best_score,
        "processes": processes,
        "files": {path.name: _digest(path, flush=True) for path in sorted(partial.iterdir())},
    }
    with (partial / _MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _checked_manifest(checkpoint: Path) -> dict:
    advice = f"delete the folder {checkpoint} to resume from the checkpoint before it"
    try:
        manifest = json.loads((checkpoint / _MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"checkpoint {checkpoint} must have a readable {_MANIFEST}; {advice}") from error
    for name, digest in files.items():
        if not (checkpoint / name).is_file() or _digest(checkpoint / name) != digest:
            raise ValueError(f"checkpoint {checkpoint} is damaged: {name} is missing or changed; {advice}")
    return manifest


def _digest(path: Path, flush: bool = False) -> str:
    with path.open("rb") as file:
        if flush:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_partial(folder: Path) -> None:
    for path in folder.glob("partial-*"):
        shutil.rmtree(path, ignore_errors=True)

"""Checkpoints: everything an exact resume needs, written so that no failure can harm an earlier one.

A checkpoint is a folder `step-00000200`. It is written under another name, checked to be on the disk, and
then renamed, so a folder of that name is complete; it is renamed again before it is removed. So a process may be
killed at any moment. Its `checkpoint.json` lists a digest of each file: what was damaged later is refused rather than
loaded.
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
_WEIGHTS = "model.safetensors"
_BEST = "best.safetensors"
_EMA = "ema.safetensors"
_FULL = 2**20


@dataclass(frozen=True)
class Progress:
    """What a run knows beside the weights, the optimiser and the random generators.

    Attributes:
        step: optimiser steps done.
        best_step: the step with the best validation score, 0 before the first validation.
        best_score: that score.
        best_weights: the model of that step.
        ema_weights: the moving average of the parameters, if there is one.
        seconds: what training has taken, with its validations and checkpoints, of all calls together.
    """

    step: int = 0
    best_step: int = 0
    best_score: float | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    ema_weights: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0


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


def write(accelerator: Accelerator, folder: Path, progress: Progress, kept: int = KEPT, every: int = 1) -> Path:
    """Write the checkpoint of `progress.step` into `folder`, and remove older ones.

    Args:
        accelerator: has prepared what is written.
        folder: where checkpoints are.
        progress: what else is written.
        kept: how many checkpoints stay, this one included.
        every: of the earlier ones only those stay whose step is a multiple of it, so that a run that was interrupted
            keeps the same.

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
            _flush(folder)
    # torch and safetensors report a full disk as errors of their own.
    except (OSError, RuntimeError, SafetensorError) as error:
        failure = could_not_write(final, folder.parent, error)
        _remove_partial(folder)
        raise failure from error
    except BaseException:
        _remove_partial(folder)
        raise
    if accelerator.is_main_process:
        _keep(folder, kept, every)
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
    if accelerator.is_main_process:
        _remove_partial(folder)
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
    best, ema = (load_file(latest / name) if name in manifest["files"] else {} for name in (_BEST, _EMA))
    seconds = manifest.get("seconds", 0.0)
    return Progress(manifest["step"], manifest["best_step"], manifest["best_score"], best, ema, seconds)


def weights_of(checkpoint: Path) -> dict[str, Tensor]:
    """The weights of the model in a checkpoint, on the CPU.

    Raises:
        ValueError: it is damaged.
    """
    _checked_manifest(checkpoint)
    # As several processes name them, the model is a part of a larger one.
    return {name.removeprefix("module."): weight for name, weight in load_file(checkpoint / _WEIGHTS).items()}


def _finish(partial: Path, progress: Progress, processes: int) -> None:
    for name, weights in ((_BEST, progress.best_weights), (_EMA, progress.ema_weights)):
        if weights:
            save_file(weights, partial / name)
    manifest = {
        "step": progress.step,
        "best_step": progress.best_step,
        "best_score": progress.best_score,
        "seconds": progress.seconds,
        "processes": processes,
        "files": {
            path.relative_to(partial).as_posix(): _digest(path, flush=True)
            for path in sorted(partial.rglob("*"))
            if path.is_file()
        },
    }
    with (partial / _MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _flush(partial)


def _flush(folder: Path) -> None:
    """See to it that the disk knows what is in a folder, where the system can be asked to."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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


def _keep(folder: Path, kept: int, every: int) -> None:
    """Remove all checkpoints but the latest one and, of those of a multiple of `every` steps, the last ones."""
    *earlier, _ = written(folder)
    regular = [path for path in earlier if int(path.name.removeprefix("step-")) % every == 0]
    for old in set(earlier) - set(regular[-(kept - 1) :] if kept > 1 else []):
        # Under its own name it would be taken for whole if it were left half removed.
        old.rename(folder / old.name.replace("step-", "partial-"))
    _remove_partial(folder)


def _remove_partial(folder: Path) -> None:
    for path in folder.glob("partial-*"):
        shutil.rmtree(path, ignore_errors=True)

"""The training loop: optimiser steps with a warm-up, clipping, checkpoints and an exact resume.

accelerate places the model on the device, runs it in the asked precision and on every process; this file
decides what a step is, when the run is saved, and what is said when something goes wrong.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, set_seed
from torch import nn

from saccade.errors import must_be
from saccade.nn.losses import Loss
from saccade.training import checkpoint, log
from saccade.training.checkpoint import KEPT, Progress
from saccade.training.interruption import Interrupted, Interruption
from saccade.training.mean_weights import MovingAverage, holding, mean_of, put
from saccade.training.process import on_cpu
from saccade.training.progress import OnStep, progress_bar
from saccade.training.recompute import keep, recompute
from saccade.training.schedule import learning_rate
from saccade.training.settings import TrainingSettings
from saccade.training.step import NotFiniteError, Stepper
from saccade.training.tensorboard import begin_tensorboard, refuse_without_tensorboard

Batch = TypeVar("Batch")

_MIXED_PRECISION = {"fp32": "no", "bf16": "bf16"}


@dataclass(frozen=True)
class Trained:
    """What a run has done.

    Attributes:
        step: the step whose weights the model now has: the last (of those averaged), or the best on validation.
        loss: the loss of the last step; NaN where no step was left to do.
        validation: the score of these weights; `None` where there was no validation.
        step_seconds: what each step of this call took, without validations and checkpoints.
        seconds: what training has taken, with validations and checkpoints, of this and earlier calls together.
    """

    step: int
    loss: float
    validation: float | None
    step_seconds: tuple[float, ...]
    seconds: float

    @property
    def steps_per_second(self) -> float:
        """Of the median step, which a pause of the machine does not move; 0 where no step was left to do."""
        return 1 / statistics.median(self.step_seconds) if self.step_seconds else 0.0


def train(
    model: nn.Module,
    loss: Callable[[nn.Module, Batch], Loss],
    batches: Callable[[int], Iterator[Batch]],
    settings: TrainingSettings,
    out: Path | None = None,
    *,
    resume: bool = False,
    validate: Callable[[nn.Module], float] | None = None,
    on_step: OnStep | None = None,
    quiet: bool = False,
) -> Trained:
    """Train `model` in place for `settings.steps` optimiser steps, or until it no longer gets better.

    A run that was stopped and resumed does exactly what a run that was never stopped does, bit for bit on a
    CPU: weights, optimiser, dropout and the order of the data continue where they were.

    Args:
        model: the model; it ends on the device that accelerate chose, with the last or best weights.
        loss: the loss of a batch under the model: its sum, and over how many tokens. A step makes small the mean
            over all tokens of its micro-batches, those of other processes included, however they are shared out.
        batches: `batches(i)` gives the endless sequence of (micro-)batches from number `i` on, the same each time;
            a batch is a tensor, tuples and dicts of them, or has a method `to(device)`, and no two need be of the same
            size. In step `s`, from 0, process `p` takes those of number `(s * accumulate + i) * processes + p`.
        settings: see there.
        out: where `checkpoints/` and `log.jsonl` go; `None` writes nothing.
        resume: continue from the latest checkpoint in `out`.
        validate: the score of the model in evaluation mode, higher being better; called as
            `settings.validate_every` says.
        on_step: called after each step with the step, its loss and its seconds.
        quiet: show no progress bar.

    Raises:
        FileExistsError: `out` holds a run and `resume` was not asked for.
        FileNotFoundError: there is nothing to resume.
        ModuleNotFoundError: the package for `settings.tensorboard` is not installed.
        FloatingPointError: a loss or gradient is NaN or infinite; the last checkpoint is kept.
        Interrupted: Ctrl-C, after the step in hand was finished and saved.
        OSError: a file could not be written, as on a full disk; earlier checkpoints are kept.
        ValueError: arguments that do not belong together, or a checkpoint that is damaged or of another model.
    """
    if resume and out is None:
        raise ValueError(must_be("out", "the folder of the run to resume", out))
    if validate is None and settings.validate_every:
        raise ValueError(must_be("validate", "given, as validate_every is not 0", validate))
    if settings.average and out is None:
        raise ValueError(must_be("out", "a folder, as average is a mean of checkpoints", out))
    if settings.tensorboard:
        refuse_without_tensorboard()
    if out is not None and not resume and (out / "checkpoints").exists():
        raise FileExistsError(f"{out} already holds a run: choose another folder, or resume it")
    run = _Run(model, settings, out, validate)
    try:
        if resume and out is not None:
            run.restore(out)
        else:
            set_seed(settings.seed, device_specific=True)
        run.track()
        return run.go(loss, batches, on_step, quiet)
    finally:
        run.release()


class _Run:
    """The moving parts of one call of `train`."""

    def __init__(
        self,
        model: nn.Module,
        settings: TrainingSettings,
        out: Path | None,
        validate: Callable[[nn.Module], float] | None,
    ) -> None:
        # accelerate keeps one state a process, which would refuse a second run in another precision.
        AcceleratorState._reset_state()
        self.tracked = settings.tensorboard and out is not None
        self.accelerator = Accelerator(
            mixed_precision=_MIXED_PRECISION[settings.precision],
            cpu=on_cpu(),
            log_with="tensorboard" if self.tracked else None,
            project_dir=out if self.tracked else None,
        )
        self.model = model
        if settings.recompute:
            recompute(model)
        self.prepared, self.optimizer = self.accelerator.prepare(model, _optimizer(model, settings))
        self.stepper = Stepper(self.accelerator, model, self.prepared, self.optimizer, settings)
        self.settings = settings
        self.out = out
        self.validate = validate
        self.progress = Progress()
        self.ema = MovingAverage(settings.ema) if settings.ema else None
        self.saved_step: int | None = None

    def go(
        self,
        loss: Callable[[nn.Module, Batch], Loss],
        batches: Callable[[int], Iterator[Batch]],
        on_step: OnStep | None,
        quiet: bool,
    ) -> Trained:
        """All steps that are left."""
        done = self.progress.step
        steps = done if _is_stale(self.progress, self.settings) else self.settings.steps
        processes, turn = self.accelerator.num_processes, self.accelerator.process_index
        first = done * self.settings.accumulate * processes + turn
        stream = _endless(islice(batches(first), 0, None, processes), done, self.settings.accumulate)
        shown = not quiet and self.accelerator.is_main_process
        value, times, begun = math.nan, [], time.perf_counter() - self.progress.seconds
        with Interruption() as interruption, progress_bar(steps, done) if shown else nullcontext() as move:
            for step in range(done + 1, steps + 1):
                started = time.perf_counter()
                value = self._step(step, loss, stream)
                times.append(time.perf_counter() - started)
                for report in (move, on_step):
                    if report is not None:
                        report(step, value, times[-1])
                self.progress = replace(self.progress, step=step, seconds=time.perf_counter() - begun)
                if self._after(step, value, times[-1], interruption):
                    break
        self.progress = replace(self.progress, seconds=time.perf_counter() - begun)
        return self._finish(value, tuple(times))

    def _finish(self, loss: float, times: tuple[float, ...]) -> Trained:
        """Give the model the weights that training returns."""
        progress, settings = self.progress, self.settings
        step, score = progress.best_step or progress.step, progress.best_score
        if settings.average and self.out is not None:
            step = progress.step
            put(self.model, mean_of(checkpoint.written(self.out / "checkpoints")[-settings.average :]))
            score = self._score(self.validate) if self.validate is not None and settings.validate_every else None
        elif progress.best_step:
            self.model.load_state_dict(progress.best_weights)
        elif self.ema is not None:
            put(self.model, self.ema.weights)
        return Trained(step, loss, score, times, progress.seconds)

    def restore(self, out: Path) -> None:
        """Continue from the latest checkpoint."""
        self.progress = checkpoint.restore(self.accelerator, out / "checkpoints")
        self.saved_step = self.progress.step
        if self.ema is not None:
            self.ema.load(self.progress.ema_weights, self.model)
        if self.accelerator.is_main_process:
            log.forget_after(out / "log.jsonl", self.progress.step)

    def track(self) -> None:
        """Begin to log to TensorBoard, if that is asked for."""
        if self.tracked:
            begin_tensorboard(self.accelerator, self.progress.step)

    def release(self) -> None:
        """Give the model back as it came: without gradients, and without what accelerate put on it."""
        self.optimizer.zero_grad()
        # `unwrap_model` leaves a mark by which the next accelerator would take the model as prepared.
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            self.model.__dict__.pop(name, None)
        keep(self.model)
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def _step(self, step: int, loss: Callable[[nn.Module, Batch], Loss], batches: Iterator[Batch]) -> float:
        rate = learning_rate(step, self.settings)
        try:
            value = self.stepper.step(rate, loss, batches)
        except NotFiniteError as error:
            kept = "no checkpoint was written before"
            if self.out is not None and self.saved_step is not None:
                kept = f"the checkpoint of step {self.saved_step} in {self.out} is kept"
            advice = "try a lower training.learning_rate, a longer training.warmup or training.precision=fp32"
            where = f"at step {step} with learning rate {rate:.3g}"
            raise FloatingPointError(f"{error} {where}: {advice}; {kept}") from None
        if self.ema is not None:
            self.ema.update(self.model)
        return value

    def _after(self, step: int, loss: float, seconds: float, interruption: Interruption) -> bool:
        """What follows a step: validation, the log, a checkpoint if due; whether it was the last one."""
        settings, last = self.settings, step == self.settings.steps
        line = {
            "step": step,
            "loss": loss,
            "learning_rate": learning_rate(step, settings),
            "seconds": seconds,
        }
        if self.validate is not None and _due(step, settings.validate_every, last):
            line["validation"] = self._validate(self.validate)
            last = last or _is_stale(self.progress, settings)
        if "validation" in line or _due(step, settings.log_every, last):
            self._log(line)
        if interruption.requested:
            self.accelerator.set_trigger()
        stop = self.accelerator.check_trigger() and not last
        if stop or last or _due(step, settings.checkpoint_every, last):
            self._save()
        if stop:
            raise Interrupted(self.out, step)
        return last

    def _validate(self, validate: Callable[[nn.Module], float]) -> float:
        """The score of the weights of this step, or of their moving average."""
        with holding(self.model, self.ema.weights) if self.ema is not None else nullcontext():
            score = self._score(validate)
            if self.progress.best_score is None or score > self.progress.best_score:
                weights = {name: weight.detach().cpu().clone() for name, weight in self.model.state_dict().items()}
                step = self.progress.step
                self.progress = replace(self.progress, best_step=step, best_score=score, best_weights=weights)
        return score

    def _score(self, validate: Callable[[nn.Module], float]) -> float:
        self.prepared.eval()
        with torch.no_grad():
            # All go by what the first process found, so that none goes on while another stops.
            return broadcast_object_list([float(validate(self.model))])[0]

    def _log(self, line: dict[str, int | float]) -> None:
        if self.out is not None and self.accelerator.is_main_process:
            self.out.mkdir(parents=True, exist_ok=True)
            log.append(self.out / "log.jsonl", line)
        if self.tracked:
            self.accelerator.log(
                {name: value for name, value in line.items() if name != "step"}, step=int(line["step"])
            )

    def _save(self) -> None:
        if self.out is not None:
            settings, progress = self.settings, self.progress
            if self.ema is not None:
                progress = replace(progress, ema_weights={name: w.cpu() for name, w in self.ema.weights.items()})
            every = (settings.checkpoint_every if settings.average else 0) or 1
            kept = max(KEPT, settings.average)
            checkpoint.write(self.accelerator, self.out / "checkpoints", progress, kept, every)
            self.saved_step = self.progress.step


def _is_stale(progress: Progress, settings: TrainingSettings) -> bool:
    """Whether the last validations, as many as the patience, brought no better score."""
    if not settings.patience or not progress.best_step:
        return False
    validations = progress.step // settings.validate_every - progress.best_step // settings.validate_every
    return validations >= settings.patience


def _endless(stream: Iterator[Batch], done: int, accumulate: int) -> Iterator[Batch]:
    """The stream, and an error if it ends."""
    taken = 0
    for batch in stream:
        yield batch
        taken += 1
    raise ValueError(must_be("batches", "endless", f"nothing for step {done + 1 + taken // accumulate}"))


def _due(step: int, every: int, last: bool) -> bool:
    return every > 0 and (last or step % every == 0)


def _optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate)

"""One optimiser step: gradients from several micro-batches on several processes, as if they were one batch.

The loss of a step is the mean over all its tokens, wherever they are. How many those are is known only at the end, but
each micro-batch must go backward before the next one. So all processes divide by the same number, which the first
micro-batches give, and at the end gradients are corrected by one factor. One micro-batch on one process is divided by
its own count, and its factor is 1: its gradients are, bit for bit, those of its mean.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import send_to_device
from torch import nn

from saccade.attention import after_step
from saccade.errors import must_be
from saccade.nn.losses import Loss
from saccade.shapes import Tensor
from saccade.training.settings import TrainingSettings

Batch = TypeVar("Batch")


class NotFiniteError(Exception):
    """A number of a step is NaN or infinite, in every process at once; the weights are as before the step."""

    def __init__(self, name: str, value: float) -> None:
        super().__init__(must_be(name, "finite", value))


@dataclass(frozen=True, eq=False)
class Stepper:
    """What every optimiser step needs.

    Attributes:
        accelerator: has prepared what follows.
        model: the model itself.
        prepared: the model as accelerate calls it.
        optimizer: of its weights.
        settings: of the run.
    """

    accelerator: Accelerator
    model: nn.Module
    prepared: nn.Module
    optimizer: AcceleratedOptimizer
    settings: TrainingSettings

    def step(self, rate: float, loss: Callable[[nn.Module, Batch], Loss], batches: Iterator[Batch]) -> float:
        """Take the micro-batches of a step and do it; the mean loss of a token in all of them on all processes.

        Raises:
            NotFiniteError: the loss or the gradient is not.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.prepared.train()
        mean = self._gradients(loss, batches)
        norm = self.accelerator.clip_grad_norm_(self.prepared.parameters(), self.settings.clip)
        _refuse_not_finite("gradient norm", cast(Tensor, norm).item())
        self.optimizer.step()
        self.optimizer.zero_grad()
        after_step(self.model)
        return mean

    def _gradients(self, loss: Callable[[nn.Module, Batch], Loss], batches: Iterator[Batch]) -> float:
        """Those of the mean loss of a token, which is returned."""
        accelerator, micro_batches = self.accelerator, self.settings.accumulate
        unit, total, count, dtype = 0.0, 0.0, 0.0, torch.float32
        for number in range(1, micro_batches + 1):
            # Processes add up their gradients once, behind the last micro-batch.
            with nullcontext() if number == micro_batches else accelerator.no_sync(self.prepared):
                found = loss(self.prepared, cast(Batch, send_to_device(next(batches), accelerator.device)))
                here, tokens = self._over_processes(found)
                _refuse_not_finite("loss", here / max(tokens, 1))
                unit = unit or max(tokens, 1)
                # Their mean is what accelerate takes.
                accelerator.backward(found.sum * (accelerator.num_processes / unit))
            total, count, dtype = total + here, count + tokens, found.sum.dtype
        if unit != max(count, 1):
            self._scale(unit / max(count, 1))
        # In the precision of the loss, as if there were one micro-batch.
        return (torch.tensor(total, dtype=dtype) / max(count, 1)).item()

    def _over_processes(self, found: Loss) -> tuple[float, int | float]:
        """Sum and count of all processes' micro-batches. NaN in one of them is NaN in all, so that all stop."""
        if self.accelerator.num_processes == 1:
            return found.sum.item(), found.count.item()
        both = torch.stack([found.sum.detach().double(), found.count.double()])
        total, count = cast(Tensor, self.accelerator.reduce(both)).tolist()
        return total, count

    def _scale(self, factor: float) -> None:
        for weight in self.prepared.parameters():
            if weight.grad is not None:
                weight.grad.mul_(factor)


def _refuse_not_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise NotFiniteError(name, value)

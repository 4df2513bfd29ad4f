"""What a training run may be told."""

import math
from dataclasses import dataclass
from typing import Literal

from saccade.errors import must_be, unknown

PRECISIONS = ("fp32", "bf16")
DECAYS = ("linear", "cosine", "inverse_sqrt")


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained, counted in optimiser steps.

    Attributes:
        steps: optimiser steps in all.
        batch_size: sequences in a (micro-)batch (on each device).
        accumulate: micro-batches in a step, one after the other (on each device), for steps that memory does not hold
            at once. They count as one batch: the loss is the mean over all their tokens.
        learning_rate: the highest rate, reached at the end of the warm-up.
        warmup: share of the steps over which the rate rises from zero, between 0 and 1.
        decay: how the rate falls after the warm-up: back to zero, or with `inverse_sqrt` as in the paper.
        weight_decay: AdamW's decay, for matrices only.
        clip: the largest norm of the gradient; longer ones are scaled down to it. `inf` clips nothing.
        precision: `bf16` computes matrix products in bfloat16; weights and optimiser stay in fp32.
        checkpoint_every: steps between checkpoints; 0 writes one at the end only.
        validate_every: steps between validations; 0 validates never and keeps the last weights. Otherwise
            the weights with the best validation score are what training returns.
        patience: validations in a row without a better score after which training ends; 0 never ends early.
        ema: decay of the moving average of the weights, such as 0.999, that is validated and returned; 0 has none.
        average: how many of the last checkpoints are kept and averaged at the end, as Vaswani et al. (2017) do with 5
            or 20; 0 averages none. The mean is then what training returns, whatever validation says.
        recompute: whether layers are computed again in the backward pass rather than kept: less memory, the same
            gradients, a third to half more time.
        tensorboard: whether lines of `log.jsonl` also go to `tensorboard/` in the run.
        log_every: steps between lines of `log.jsonl`.
        seed: of the initial weights, the order of the data, and dropout.
    """

    steps: int = 1000
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup: float = 0.1
    decay: Literal["linear", "cosine", "inverse_sqrt"] = "linear"
    weight_decay: float = 0.01
    clip: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_every: int = 200
    validate_every: int = 0
    patience: int = 0
    ema: float = 0.0
    average: int = 0
    recompute: bool = False
    tensorboard: bool = False
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(must_be(name, "at least 1", getattr(self, name)))
        for name in ("checkpoint_every", "validate_every", "patience", "average", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(must_be(name, "at least 0", getattr(self, name)))
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(must_be("learning_rate", "positive and finite", self.learning_rate))
        if not 0 <= self.warmup <= 1:
            raise ValueError(must_be("warmup", "a share of the steps, from 0 to 1", self.warmup))
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(must_be("weight_decay", "at least 0 and finite", self.weight_decay))
        if not self.clip > 0:
            raise ValueError(must_be("clip", "positive (inf clips nothing)", self.clip))
        if self.precision not in PRECISIONS:
            raise ValueError(unknown("precision", self.precision, PRECISIONS))
        if self.decay not in DECAYS:
            raise ValueError(unknown("decay", self.decay, DECAYS))
        if not 0 <= self.ema < 1:
            raise ValueError(must_be("ema", "at least 0 and below 1", self.ema))
        self._refuse_what_cannot_be_together()

    def _refuse_what_cannot_be_together(self) -> None:
        if self.patience and not self.validate_every:
            raise ValueError(must_be("patience", "0, as validate_every is 0", self.patience))
        if self.average and self.ema:
            raise ValueError(must_be("average", "0, as ema is another mean of weights", self.average))
        every = self.checkpoint_every or self.steps
        if self.average > (checkpoints := math.ceil(self.steps / every)):
            raise ValueError(must_be("average", f"at most the number of checkpoints, {checkpoints}", self.average))

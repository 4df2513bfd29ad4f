"""Means of weights, which do better than the last ones: over all steps, and over the last checkpoints.

Over steps: an exponential moving average (Polyak & Juditsky 1992; as in Szegedy et al. 2016), one more copy of the
weights. Over checkpoints: their plain mean ("Attention Is All You Need", Vaswani et al. 2017, section 6.1), at no cost
while training. Both speak of parameters only: buffers, such as random directions that are drawn anew, have no mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from saccade.errors import must_be
from saccade.shapes import Tensor
from saccade.training.checkpoint import weights_of


class MovingAverage:
    """The exponential moving average of a model's parameters: `w <- decay w + (1 - decay) now`.

    Args:
        decay: between 0 and 1; about `1 / (1 - decay)` steps are averaged.

    Attributes:
        weights: by name; empty before the first step, whose weights it begins with.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._average = get_ema_multi_avg_fn(decay)
        self.weights: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the parameters of a step."""
        now = {name: weight.detach() for name, weight in model.named_parameters()}
        if not self.weights:
            self.weights = {name: weight.clone() for name, weight in now.items()}
        else:
            self._average(list(self.weights.values()), list(now.values()), 0)

    def load(self, weights: Mapping[str, Tensor], model: nn.Module) -> None:
        """Continue from the weights of a checkpoint, beside those of the model.

        Raises:
            ValueError: the checkpoint has no moving average of this model.
        """
        places = {name: weight.device for name, weight in model.named_parameters()}
        if set(places) != set(weights):
            raise ValueError(
                must_be("ema", "0, as the run to resume keeps no moving average of this model", self._decay)
            )
        self.weights = {name: weights[name].to(place) for name, place in places.items()}


@torch.no_grad()
def put(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a model these parameters; those that have no entry stay."""
    for name, weight in model.named_parameters(remove_duplicate=False):
        if name in weights:
            weight.copy_(weights[name])


@contextmanager
def holding(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """While entered, the model has these parameters; then its own again."""
    own = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    put(model, weights)
    try:
        yield
    finally:
        put(model, own)


def mean_of(checkpoints: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of the floating weights of some checkpoints, in double precision.

    Raises:
        ValueError: one of them is damaged.
    """
    total: dict[str, Tensor] = {}
    for checkpoint in checkpoints:
        for name, weight in weights_of(checkpoint).items():
            if weight.is_floating_point():
                total[name] = total[name].add_(weight) if name in total else weight.double()
    return {name: weight / len(checkpoints) for name, weight in total.items()}

"""A model with dropout and an endless stream, small enough that whole runs take a second."""

from collections.abc import Iterator
from itertools import count

import torch
from torch import Tensor, nn

from saccade.nn.losses import Loss, cross_entropy


class Toy:
    """Fresh copies of one model, and data that is a pure function of the batch number."""

    def model(self) -> nn.Module:
        torch.manual_seed(11)
        return nn.Sequential(nn.Linear(7, 13), nn.Dropout(0.3), nn.Tanh(), nn.Linear(13, 3))

    def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for number in count(start):
            generator = torch.Generator().manual_seed(number)
            x = torch.randn(5, 7, generator=generator)
            yield x, x[:, :3].argmax(1)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Loss:
        return cross_entropy(model(batch[0]), batch[1])

    def score(self, model: nn.Module) -> float:
        x, labels = next(self.batches(10**6))
        return -nn.functional.cross_entropy(model(x), labels).item()

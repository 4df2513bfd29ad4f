"""A model at work for a few steps: what its speed and memory are measured on, and its answers."""

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from saccade.attention import after_step
from saccade.data import Split, batches
from saccade.shapes import Bool, Tensor
from saccade.tasks.classification import Prepared, loss, predict


class Trial:
    """Training steps and forward passes over one and the same batch, in the precision of the recipe.

    Args:
        prepared: the model, which is trained in place, and the data.
        device: where to run.
    """

    def __init__(self, prepared: Prepared, device: torch.device) -> None:
        settings, data = prepared.recipe.training, prepared.data
        self.model = prepared.model.to(device)
        self.settings = settings
        self.optimizer = torch.optim.AdamW(self.model.parameters(), settings.learning_rate)
        batch = next(batches(data.train, settings.batch_size, data.vocabulary.pad_id, seed=settings.seed))
        self.batch = batch.to(device)

    def step(self) -> None:
        """One optimiser step as in training."""
        self.model.train()
        with self._precision():
            value = loss(self.model, self.batch).mean
        value.backward()
        clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        after_step(self.model)

    def infer(self) -> None:
        """One forward pass as in evaluation."""
        self.model.eval()
        with torch.inference_mode(), self._precision():
            self.model(self.batch.tokens, self.batch.key_mask)

    def _precision(self) -> torch.autocast:
        reduced = self.settings.precision == "bf16"
        return torch.autocast(self.batch.tokens.device.type, torch.bfloat16, enabled=reduced)


def right_answers(model: nn.Module, split: Split, pad_id: int, batch_size: int) -> Bool[Tensor, " n"]:
    """For each example of a split, whether the model labels it right."""
    return predict(model, split, pad_id, batch_size).argmax(1) == split.labels

"""The task "masked language model": tokens that were hidden, from those on both sides (BERT, Devlin et al. 2019).

Scored on windows one beside the other, with places drawn from the recipe's seed: the same in every evaluation.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from saccade.attention.record import Record
from saccade.data.masking import masked
from saccade.data.stream import Stream, StreamData, StreamSettings
from saccade.data.windows import WindowBatch, sliding_windows
from saccade.errors import must_be
from saccade.models import LanguageModelSettings
from saccade.nn import Loss, cross_entropy
from saccade.nn.auxiliary import with_auxiliary
from saccade.tasks.windowed_text import TextWork, WindowSettings, load, loaded, recipe_with, text_of
from saccade.training import TrainingSettings, half_width
from saccade.training.evaluating import evaluating
from saccade.training.process import process_state


@dataclass(frozen=True)
class Recipe:
    """All that a run is made from; a TOML file holds the same.

    Attributes:
        task: the name of this task.
        data: which text, and what its tokens are.
        windows: what is read at once; `stride` means nothing here.
        share: of the tokens, how many are to be found.
        model: the shape of the model, which must not be causal.
        training: how it is trained.

    Raises:
        ValueError: a share that is none, or a causal model.
    """

    data: StreamSettings
    task: Literal["masked_language_model"] = "masked_language_model"
    windows: WindowSettings = field(default_factory=WindowSettings)
    share: float = 0.15
    model: LanguageModelSettings = field(default_factory=lambda: LanguageModelSettings(causal=False))
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        """Refuse what cannot learn this."""
        if not 0 < self.share < 1:
            raise ValueError(must_be("share", "above 0 and below 1", self.share))
        if self.model.causal:
            raise ValueError(must_be("model.causal", "false: what is hidden is found from both sides", True))


@dataclass(frozen=True)
class Score:
    """How well a model finds what is hidden.

    Attributes:
        accuracy: share of the tokens that it ranks first.
        half_width: half of the 95 % confidence interval of that.
        nats_per_token: the mean cross-entropy.
        perplexity: e to that power.
        tokens: how many were to be found.
    """

    accuracy: float
    half_width: float
    nats_per_token: float
    perplexity: float
    tokens: int


@dataclass(frozen=True, eq=False)
class Prepared(TextWork):
    """A recipe with its data loaded and its model built."""

    recipe: Recipe

    def loss(self, model: nn.Module, batch: WindowBatch) -> Loss:
        """As the function `loss`."""
        return loss(model, batch, self.recipe.share, self.data.tokenizer.size)

    def validate(self, model: nn.Module) -> float:
        """The mean log-likelihood of a hidden token, in nats."""
        return -score(model, self.data.validation, self.recipe, self.data.tokenizer.size).nats_per_token

    def metrics(self) -> dict[str, object]:
        """The scores on the test split."""
        found = score(self.model, self.data.test, self.recipe, self.data.tokenizer.size)
        return _metrics(found, self.data.test, self.data.name, "test")


def prepare(recipe: Recipe, data: StreamData | None = None) -> Prepared:
    """The text and the model of a recipe; arguments and errors as `saccade.tasks.windowed_text.loaded`."""
    return Prepared(recipe, *loaded(recipe, data))


def loss(model: nn.Module, batch: WindowBatch, share: float, vocabulary: int) -> Loss:
    """The cross-entropy of tokens that are drawn anew, with the auxiliary losses of the mechanisms."""
    record, tokens = Record("losses"), batch.targets
    inputs, chosen = masked(tokens, batch.scored, share, vocabulary)
    found = cross_entropy(model(inputs, batch.scored, record=record), tokens, chosen)
    return with_auxiliary(found, record["losses"])


def score(model: nn.Module, text: Stream, recipe: Recipe, vocabulary: int) -> Score:
    """How well `model` finds tokens of a text. The model stays in the mode and place it was in.

    Args:
        model: gives logits at every place.
        text: where tokens are hidden.
        recipe: how many, in which windows, and by which seed.
        vocabulary: how many ids there are.

    Raises:
        ValueError: the text is so short that no token was chosen.
    """
    generator, length = torch.Generator().manual_seed(recipe.training.seed), recipe.windows.length
    size = recipe.training.batch_size
    total, right, count = 0.0, 0, 0
    with evaluating(model) as device:
        for batch in sliding_windows(text.tokens, length, length, size):
            inputs, chosen = masked(batch.targets, batch.scored, recipe.share, vocabulary, generator)
            logits = model(inputs.to(device), batch.scored.to(device)).float().cpu()
            found = cross_entropy(logits, batch.targets, chosen)
            total, count = total + found.sum.item(), count + int(found.count)
            right += int((logits.argmax(-1) == batch.targets)[chosen].sum())
    if not count:
        raise ValueError(must_be("text", "long enough for some tokens to be hidden", f"{len(text.tokens)} tokens"))
    mean = total / count
    return Score(right / count, half_width(right / count, count), mean, math.exp(min(mean, 700)), count)


def evaluate(
    folder: Path, source: str | None = None, overrides: Sequence[str] = (), split: str | None = None
) -> dict[str, object]:
    """Score the model of a run; arguments and errors as `saccade.tasks.language_model.evaluate`."""
    recipe = recipe_with(folder, Recipe, overrides)
    model, tokenizer = load(folder)
    text, name, part = text_of(recipe.data, tokenizer, source, split)
    return _metrics(score(model.to(process_state().device), text, recipe, tokenizer.size), text, name, part)


def _metrics(found: Score, text: Stream, source: str, split: str) -> dict[str, Any]:
    return {"data": source, "split": split, **asdict(found), "unknown_share": text.unknown}

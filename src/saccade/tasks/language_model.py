"""The task "language model": the next token of a text, from all that is before it in a window.

Scored over sliding windows, in which every token counts once and has read something: bits per byte compare models
whatever their tokens are, perplexity those with the same tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from saccade.attention.record import Record
from saccade.data.stream import Stream, StreamData, StreamSettings
from saccade.data.windows import WindowBatch, sliding_windows
from saccade.errors import must_be
from saccade.models import LanguageModelSettings
from saccade.nn import Loss, cross_entropy
from saccade.nn.auxiliary import with_auxiliary
from saccade.tasks.answers import refuse_ratio, to_method
from saccade.tasks.windowed_text import TextWork, WindowSettings, load, loaded, recipe_with, text_of
from saccade.training import TrainingSettings
from saccade.training.evaluating import evaluating
from saccade.training.process import process_state


@dataclass(frozen=True)
class Recipe:
    """All that a run is made from; a TOML file holds the same.

    Attributes:
        task: the name of this task.
        data: which text, and what its tokens are.
        windows: what is read at once.
        model: the shape of the model.
        training: how it is trained.
        method: how it writes where nothing else is asked for.
    """

    data: StreamSettings
    task: Literal["language_model"] = "language_model"
    method: str = "sampling(temperature=0.8, max_length=200)"
    windows: WindowSettings = field(default_factory=WindowSettings)
    model: LanguageModelSettings = field(default_factory=LanguageModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        """Refuse a model or a method that cannot do this."""
        refuse_ratio(to_method(self.method))
        if not self.model.causal:
            raise ValueError(must_be("model.causal", "true: what comes next is not to be seen", self.model.causal))


@dataclass(frozen=True)
class Score:
    """How well a model foretells a text.

    Attributes:
        nats_per_token: the mean cross-entropy.
        perplexity: e to that power.
        bits_per_byte: of the whole text in UTF-8; ends of documents are paid for, too.
        nats_per_character: likewise.
        tokens: how many were foretold.
    """

    nats_per_token: float
    perplexity: float
    bits_per_byte: float
    nats_per_character: float
    tokens: int


@dataclass(frozen=True, eq=False)
class Prepared(TextWork):
    """A recipe with its data loaded and its model built."""

    recipe: Recipe

    def loss(self, model: nn.Module, batch: WindowBatch) -> Loss:
        """As the function `loss`."""
        return loss(model, batch)

    def validate(self, model: nn.Module) -> float:
        """The mean log-likelihood of a token, in nats."""
        return -score(model, self.data.validation, self.recipe.windows, self.recipe.training.batch_size).nats_per_token

    def metrics(self) -> dict[str, object]:
        """The scores on the test split."""
        return _metrics(self.model, self.data.test, self.recipe, self.data.name, "test")


def prepare(recipe: Recipe, data: StreamData | None = None) -> Prepared:
    """The text and the model of a recipe; arguments and errors as `saccade.tasks.windowed_text.loaded`."""
    return Prepared(recipe, *loaded(recipe, data))


def loss(model: nn.Module, batch: WindowBatch) -> Loss:
    """The cross-entropy of a batch, with the auxiliary losses of its mechanisms."""
    record = Record("losses")
    found = cross_entropy(model(batch.inputs, record=record), batch.targets, batch.scored)
    return with_auxiliary(found, record["losses"])


def score(model: nn.Module, text: Stream, windows: WindowSettings, batch_size: int = 16) -> Score:
    """How well `model` foretells a text. The model stays in the mode and place it was in."""
    total, count = 0.0, 0
    with evaluating(model) as device:
        for batch in sliding_windows(text.tokens, windows.length, windows.step, batch_size):
            batch = batch.to(device)
            found = cross_entropy(model(batch.inputs).float(), batch.targets, batch.scored)
            total, count = total + found.sum.item(), count + int(found.count)
    mean = total / count
    bits = total / math.log(2) / text.bytes
    return Score(mean, math.exp(min(mean, 700)), bits, total / text.characters, count)


def evaluate(
    folder: Path, source: str | None = None, overrides: Sequence[str] = (), split: str | None = None
) -> dict[str, object]:
    """Score the model of a run.

    Args:
        folder: the run.
        source: another text than the run's own, a file that is scored whole.
        overrides: changes of the recipe's windows, such as `"windows.stride=16"`.
        split: `train`, `validation` or `test`, the last if not given; of the run's own text only.

    Returns:
        The fields of `Score`, `data` and `split`.

    Raises:
        FileNotFoundError: the folder holds no run, or no trained model yet, or there is no such text.
        ValueError: an unknown split, a split of another text, another override, or a text that is not readable.
    """
    recipe = recipe_with(folder, Recipe, overrides)
    model, tokenizer = load(folder)
    text, name, part = text_of(recipe.data, tokenizer, source, split)
    return _metrics(model.to(process_state().device), text, recipe, name, part)


def _metrics(model: nn.Module, text: Stream, recipe: Recipe, source: str, split: str) -> dict[str, Any]:
    found = score(model, text, recipe.windows, recipe.training.batch_size)
    return {"data": source, "split": split, **asdict(found), "unknown_share": text.unknown}

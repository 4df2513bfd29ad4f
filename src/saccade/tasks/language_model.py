"""The task "language model": the next token of a text, from all that is before it in a window.

Scored over sliding windows, in which every token counts once and has read something: bits per byte compare models
whatever their tokens are, perplexity those with the same tokens.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from saccade import config
from saccade.attention.record import Record
from saccade.data.stream import Stream, StreamData, StreamSettings, load_stream, load_streams
from saccade.data.tokenizer import Tokenizer
from saccade.data.windows import WindowBatch, consecutive_windows, random_windows, sliding_windows
from saccade.errors import must_be, unknown
from saccade.models import LanguageModel, LanguageModelSettings
from saccade.nn import Loss, cross_entropy
from saccade.nn.auxiliary import with_auxiliary
from saccade.tasks import run_folder
from saccade.tasks.answers import to_method
from saccade.tasks.run import Work
from saccade.tasks.run_folder import DATA, DataRecord
from saccade.training import TrainingSettings
from saccade.training.process import process_state
from saccade.writing import write

TOKENIZER = "tokenizer.json"
ORDERS = {"random": random_windows, "consecutive": consecutive_windows}


@dataclass(frozen=True)
class WindowSettings:
    """What a model reads at once.

    Attributes:
        length: tokens of a window.
        stride: how far one window lies behind the one before when a model is scored; half the length if not given.
            The smaller, the more each token has read, and the longer it takes.
        order: in training, windows drawn anywhere (`random`), or all of them in a drawn order (`consecutive`).

    Raises:
        ValueError: a size that cannot be, or an unknown order.
    """

    length: int = 256
    stride: int | None = None
    order: Literal["random", "consecutive"] = "random"

    def __post_init__(self) -> None:
        """Refuse what gives no windows."""
        if self.length < 1:
            raise ValueError(must_be("length", "at least 1", self.length))
        if self.stride is not None and not 1 <= self.stride <= self.length:
            raise ValueError(must_be("stride", f"from 1 to length = {self.length}", self.stride))
        if self.order not in ORDERS:
            raise ValueError(unknown("order", self.order, ORDERS))

    @property
    def step(self) -> int:
        """The stride."""
        return max(1, self.length // 2) if self.stride is None else self.stride


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
        to_method(self.method)
        if not self.model.causal:
            raise ValueError(must_be("model.causal", "true: what comes next is not to be seen", self.model.causal))


@dataclass(frozen=True)
class TextRecord(DataRecord):
    """What a run remembers of its text.

    Attributes:
        tokenizer: what the tokens stand for.
        fingerprint: a digest of the tokens to train on.
        facts: the data in words and counts.
    """

    tokenizer: Tokenizer
    fingerprint: str
    facts: dict[str, str]

    @classmethod
    def of(cls, data: StreamData) -> "TextRecord":
        """The record of some text."""
        digest = hashlib.sha256(data.tokenizer.identity.digest.encode() + data.train.tokens.numpy().tobytes())
        return cls(data.tokenizer, digest.hexdigest(), data.facts)

    def write(self, folder: Path) -> None:
        """Put it into the folder of the run."""
        self.tokenizer.save(folder / TOKENIZER)
        write(folder / DATA, json.dumps({"fingerprint": self.fingerprint, "facts": self.facts}, indent=1))


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
class Prepared(Work):
    """A recipe with its data loaded and its model built.

    Attributes:
        recipe: what both were made from.
        data: the texts.
        model: the model, with the weights that training starts from.
    """

    recipe: Recipe
    data: StreamData
    model: LanguageModel

    @property
    def name(self) -> str:
        """Of the data, as the recipe has it."""
        return self.recipe.data.source

    @property
    def record(self) -> TextRecord:
        """What a run remembers of the text."""
        return TextRecord.of(self.data)

    def batches(self, start: int) -> Iterator[WindowBatch]:
        """Windows of the text to train on."""
        settings, windows = self.recipe.training, self.recipe.windows
        cut = ORDERS[windows.order]
        return cut(self.data.train.tokens, windows.length, settings.batch_size, seed=settings.seed, start=start)

    def loss(self, model: nn.Module, batch: WindowBatch) -> Loss:
        """As the function `loss`."""
        return loss(model, batch)

    def validate(self, model: nn.Module) -> float:
        """The mean log-likelihood of a token, in nats."""
        return -score(model, self.data.validation, self.recipe.windows, self.recipe.training.batch_size).nats_per_token

    def metrics(self) -> dict[str, object]:
        """The scores on the test split."""
        return _metrics(self.model, self.data.test, self.recipe, self.data.name, "test")

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer."""
        self.model.save_pretrained(folder, self.data.tokenizer)


def prepare(recipe: Recipe, data: StreamData | None = None) -> Prepared:
    """Load the text, and build the model with weights drawn from the recipe's seed.

    Args:
        recipe: what to prepare.
        data: the text of this recipe, where it is loaded already.

    Raises:
        ValueError, OSError: the data or the model cannot be as the recipe says.
    """
    data = load_streams(recipe.data) if data is None else data
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        model = LanguageModel(data.tokenizer.size, recipe.model)
    return Prepared(recipe, data, model)


def loss(model: nn.Module, batch: WindowBatch) -> Loss:
    """The cross-entropy of a batch, with the auxiliary losses of its mechanisms."""
    record = Record("losses")
    found = cross_entropy(model(batch.inputs, record=record), batch.targets, batch.scored)
    return with_auxiliary(found, record["losses"])


def score(model: nn.Module, text: Stream, windows: WindowSettings, batch_size: int = 16) -> Score:
    """How well `model` foretells a text. The model stays in the mode and place it was in."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in sliding_windows(text.tokens, windows.length, windows.step, batch_size):
            batch = batch.to(device)
            found = cross_entropy(model(batch.inputs).float(), batch.targets, batch.scored)
            total, count = total + found.sum.item(), count + int(found.count)
    model.train(was_training)
    mean = total / count
    bits = total / math.log(2) / text.bytes
    return Score(mean, math.exp(min(mean, 700)), bits, total / text.characters, count)


def load(folder: Path) -> tuple[LanguageModel, Tokenizer]:
    """The model of a run, in evaluation mode, and what its tokens stand for.

    Raises:
        FileNotFoundError: the folder holds no run, or no trained model yet.
        ValueError: a file of it is damaged, or the tokenizer is that of another run.
    """
    run_folder.recipe_path(folder)
    run_folder.refuse_untrained(folder)
    model, tokenizer = LanguageModel.from_pretrained(folder), Tokenizer.read(folder / TOKENIZER)
    if tokenizer.size != (meant := model.sizes["vocabulary_size"]):
        size = f"of the {meant:,} tokens of the model"
        raise ValueError(f"{folder / TOKENIZER}: {must_be('vocabulary', size, tokenizer.size)}")
    return model, tokenizer


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
    for override in overrides:
        if not override.strip().startswith("windows."):
            raise ValueError(must_be("--set", "a change of the windows, such as windows.stride=16", override))
    recipe = config.load(run_folder.recipe_path(folder), Recipe, overrides)
    model, tokenizer = load(folder)
    if source is not None and split is not None:
        raise ValueError(must_be("split", "left out for a file, which is scored whole", split))
    if split is not None and split not in (splits := ("train", "validation", "test")):
        raise ValueError(unknown("split", split, splits))
    name, part = source or recipe.data.source, split or ("test" if source is None else "all")
    text = (
        load_streams(recipe.data, tokenizer).splits[part]
        if source is None
        else load_stream(source, tokenizer, recipe.data.document)
    )
    return _metrics(model.to(process_state().device), text, recipe, name, part)


def _metrics(model: nn.Module, text: Stream, recipe: Recipe, source: str, split: str) -> dict[str, Any]:
    found = score(model, text, recipe.windows, recipe.training.batch_size)
    return {"data": source, "split": split, **asdict(found), "unknown_share": text.unknown}

"""What tasks on running text share: windows of it, what a run remembers of it, and which text a model is scored on."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from saccade import config
from saccade.data.stream import Stream, StreamData, StreamSettings, load_stream, load_streams
from saccade.data.tokenizer import Identity, Tokenizer
from saccade.data.windows import WindowBatch, consecutive_windows, random_windows
from saccade.errors import must_be, unknown
from saccade.models import LanguageModel
from saccade.models.sizes import check_longest
from saccade.seeded import seeded
from saccade.tasks import run_folder
from saccade.tasks.run import Work, scored_split
from saccade.tasks.run_folder import DATA, DataRecord
from saccade.writing import write

TOKENIZER = "tokenizer.json"
ORDERS = {"random": random_windows, "consecutive": consecutive_windows}

Recipe = TypeVar("Recipe")


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
        identity = asdict(self.tokenizer.identity)
        state = {"fingerprint": self.fingerprint, "facts": self.facts, "tokenizer": identity}
        write(folder / DATA, json.dumps(state, indent=1))


@dataclass(frozen=True, eq=False)
class TextWork(Work):
    """A recipe with its text loaded and its model built.

    Attributes:
        recipe: what both were made from, with `data`, `windows` and `training`.
        data: the texts.
        model: the model, with the weights that training starts from.
    """

    recipe: Any
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

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer."""
        self.model.save_pretrained(folder, self.data.tokenizer)


def loaded(recipe: Any, data: StreamData | None) -> tuple[StreamData, LanguageModel]:
    """The text of a recipe, and a model with weights drawn from the recipe's seed.

    Args:
        recipe: with `data`, `windows`, `model` and `training`.
        data: the text of this recipe, where it is loaded already.

    Raises:
        ValueError, OSError: the data or the model cannot be as the recipe says.
    """
    check_longest("model", recipe.model, recipe.windows.length)
    data = load_streams(recipe.data) if data is None else data
    with seeded(recipe.training.seed):
        return data, LanguageModel(data.tokenizer.size, recipe.model)


def load(folder: Path) -> tuple[LanguageModel, Tokenizer]:
    """The model of a run, in evaluation mode, and what its tokens stand for.

    Raises:
        FileNotFoundError: the folder holds no run, or no trained model yet.
        ValueError: a file of it is damaged, or the tokenizer is that of another run.
    """
    run_folder.recipe_path(folder)
    run_folder.refuse_untrained(folder)
    model, tokenizer = LanguageModel.from_pretrained(folder), Tokenizer.read(folder / TOKENIZER)
    # Runs from before this was kept say only the size, by their model.
    meant = run_folder.read_data(folder).get("tokenizer", {"size": model.sizes["vocabulary_size"]})
    Identity(meant["size"], meant.get("digest", tokenizer.identity.digest)).check(tokenizer, str(folder / TOKENIZER))
    return model, tokenizer


def recipe_with(folder: Path, kind: type[Recipe], overrides: Sequence[str]) -> Recipe:
    """The recipe of a run, of which its windows may be changed to score it.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: another change.
    """
    for override in overrides:
        if not override.strip().startswith("windows."):
            raise ValueError(must_be("--set", "a change of the windows, such as windows.stride=16", override))
    return config.load(run_folder.recipe_path(folder), kind, overrides)


def text_of(
    settings: StreamSettings, tokenizer: Tokenizer, source: str | None, split: str | None
) -> tuple[Stream, str, str]:
    """The text that a model is scored on, its name, and which part of it that is.

    Args:
        settings: of the run's own text.
        tokenizer: the run's.
        source: another text, a file that is scored whole.
        split: of the run's own text, the test if not given.

    Raises:
        FileNotFoundError: there is no such text.
        ValueError: an unknown split, a split of another text, or a text that is not readable.
    """
    part = scored_split(source, split)
    if source is not None:
        return load_stream(source, tokenizer, settings.document), source, part
    return load_streams(settings, tokenizer).splits[part], settings.source, part

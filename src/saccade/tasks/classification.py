"""The task "one label a sequence": data, model, loss and score from one recipe.

`train`, `resume` and `evaluate` work on a run folder. `prepare` and `score` are the same without one,
for a caller that trains several models on data it loads once.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from saccade import config
from saccade.attention.record import Record
from saccade.data import Batch, DataSettings, LabelledData, Split, batches, endless, kind_of
from saccade.data import load as load_data
from saccade.data.files import read_rows
from saccade.data.rows import Columns
from saccade.data.splitting import SPLITS
from saccade.errors import must_be, unknown
from saccade.models import ClassifierSettings, SequenceClassifier
from saccade.models.sizes import check_longest
from saccade.nn import losses
from saccade.nn.auxiliary import with_auxiliary
from saccade.nn.losses import Loss
from saccade.seeded import seeded
from saccade.shapes import Float, Tensor
from saccade.tasks import run_folder
from saccade.tasks.labelled_record import LabelledRecord
from saccade.tasks.run import Work, scored_split
from saccade.training import TrainingSettings, accuracy, half_width
from saccade.training.evaluating import evaluating
from saccade.training.process import process_state


@dataclass(frozen=True)
class Recipe:
    """All that a run is made from; a TOML file holds the same.

    Attributes:
        task: the name of this task.
        data: which data.
        model: the shape of the model.
        training: how it is trained.
    """

    task: Literal["classification"] = "classification"
    data: DataSettings = field(default_factory=DataSettings)
    model: ClassifierSettings = field(default_factory=ClassifierSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)


@dataclass(frozen=True, eq=False)
class Prepared(Work):
    """A recipe with its data loaded and its model built.

    Attributes:
        recipe: what both were made from.
        data: the examples.
        model: the model, with the weights that training starts from.
    """

    recipe: Recipe
    data: LabelledData
    model: SequenceClassifier

    @property
    def name(self) -> str:
        """Of the data, as the recipe has it."""
        return self.recipe.data.source

    @property
    def record(self) -> LabelledRecord:
        """What a run remembers of the data."""
        return LabelledRecord.of(self.data)

    def batches(self, start: int) -> Iterator[Batch]:
        """The examples to train on, in a new order in each epoch."""
        settings, pad_id = self.recipe.training, self.data.vocabulary.pad_id
        return endless(self.data.train, settings.batch_size, pad_id, seed=settings.seed, start=start)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """As the function `loss`."""
        return loss(model, batch)

    def validate(self, model: nn.Module) -> float:
        """The share of right answers."""
        pad_id, size = self.data.vocabulary.pad_id, self.recipe.training.batch_size
        return score(model, self.data.validation, pad_id, size).accuracy

    def metrics(self) -> dict[str, object]:
        """The scores on the test split."""
        test = self.data.test
        found = score(self.model, test, self.data.vocabulary.pad_id, self.recipe.training.batch_size)
        return _metrics(found, test, self.record, self.data.name, "test")

    def save(self, folder: Path) -> None:
        """Write the model."""
        self.model.save_pretrained(folder)


@dataclass(frozen=True)
class Score:
    """How well a model does on some examples.

    Attributes:
        accuracy: share of right answers.
        half_width: half of its 95 % confidence interval: how far chance alone may move it.
        loss: mean cross-entropy in nats.
        examples: how many there were.
    """

    accuracy: float
    half_width: float
    loss: float
    examples: int


def prepare(recipe: Recipe, data: LabelledData | None = None) -> Prepared:
    """Load the data, and build the model with weights drawn from the recipe's seed.

    Args:
        recipe: what to prepare.
        data: the data of this recipe, where it is loaded already.

    Raises:
        ValueError, OSError: the data or the model cannot be as the recipe says.
    """
    data = load_data(recipe.data) if data is None else data
    check_longest("model", recipe.model, data.longest)
    with seeded(recipe.training.seed):
        model = SequenceClassifier(data.vocabulary.size, len(data.classes), recipe.model)
    return Prepared(recipe, data, model)


def loss(model: nn.Module, batch: Batch) -> Loss:
    """Cross-entropy of a batch, in nats, with the auxiliary losses of its mechanisms."""
    record = Record("losses")
    task = losses.cross_entropy(model(batch.tokens, batch.key_mask, record=record), batch.labels)
    return with_auxiliary(task, record["losses"])


def predict(model: nn.Module, split: Split, pad_id: int, batch_size: int = 16) -> Float[Tensor, "n classes"]:
    """The logits of every example of `split`, on the CPU. The model stays in the mode and place it was in."""
    with evaluating(model) as device:
        parts = [
            model(batch.tokens.to(device), batch.key_mask.to(device)).float().cpu()
            for batch in batches(split, batch_size, pad_id, shuffle=False)
        ]
        return torch.cat(parts)


def score(model: nn.Module, split: Split, pad_id: int, batch_size: int = 16) -> Score:
    """How well `model` labels the examples of `split`."""
    logits = predict(model, split, pad_id, batch_size)
    right = accuracy(logits.argmax(1), split.labels)
    return Score(right, half_width(right, len(split)), cross_entropy(logits, split.labels).item(), len(split))


def evaluate(folder: Path, data: DataSettings | None = None, split: str | None = None) -> dict[str, object]:
    """Score the model of a run.

    Args:
        folder: the run.
        data: other data than the run's own. A file is scored whole, as none of it was trained on.
        split: `train`, `validation` or `test`, the last if not given; of data that have splits only.

    Returns:
        `accuracy`, its `half_width`, `loss`, `examples`, the `majority_share` (the accuracy of always
        guessing the commonest label in training), `data` and `split`.

    Raises:
        FileNotFoundError: the folder holds no run, or no trained model yet.
        ValueError: an unknown split, a split of a whole file, a label that is new to the model, or unreadable data.
    """
    recipe = config.load(run_folder.recipe_path(folder), Recipe)
    record = LabelledRecord.read(folder)
    model = trained_model(folder, record)
    settings = recipe.data if data is None else data
    whole = kind_of(settings.source) == "file" and settings.source != recipe.data.source
    part = scored_split(settings.source if whole else None, split)
    examples = _read_file(settings, record) if whole else _read_split(settings, part, record)
    model.to(process_state().device)
    found = score(model, examples, record.vocabulary.pad_id, recipe.training.batch_size)
    return _metrics(found, examples, record, settings.source, part)


def load(folder: Path, split: str = "test") -> tuple[SequenceClassifier, Split]:
    """The model of a run, in evaluation mode, and a split of the run's own data.

    Raises:
        FileNotFoundError: the folder holds no run, or no trained model yet.
        ValueError: an unknown split, or data that is no longer what the model reads.
    """
    recipe = config.load(run_folder.recipe_path(folder), Recipe)
    record = LabelledRecord.read(folder)
    return trained_model(folder, record), _read_split(recipe.data, split, record)


def trained_model(folder: Path, record: LabelledRecord) -> SequenceClassifier:
    """The model of a run, in evaluation mode.

    Raises:
        FileNotFoundError: the run has no trained model yet.
        ValueError: it is damaged, or the record is that of a run with other tokens or classes.
    """
    run_folder.refuse_untrained(folder)
    model = SequenceClassifier.from_pretrained(folder)
    meant = {"vocabulary_size": record.vocabulary.size, "classes": len(record.classes)}
    if model.sizes != meant:
        raise ValueError(f"{folder / run_folder.DATA}: {must_be('record', f'that of the model, {model.sizes}', meant)}")
    return model


def _metrics(found: Score, examples: Split, record: LabelledRecord, source: str, split: str) -> dict[str, object]:
    share = (examples.labels == record.commonest).double().mean().item()
    return {"data": source, "split": split, **asdict(found), "majority_share": share}


def _read_split(settings: DataSettings, split: str, record: LabelledRecord) -> Split:
    """A split of some data, with the labels and tokens of the run."""
    if split not in SPLITS:
        raise ValueError(unknown("split", split, SPLITS))
    data = load_data(settings)
    if data.vocabulary != record.vocabulary:
        kinds = [f"{type(each).__name__} of {each.size:,}" for each in (record.vocabulary, data.vocabulary)]
        raise ValueError(must_be("data", f"data of the vocabulary that the model reads ({kinds[0]})", kinds[1]))
    found = data.splits[split]
    names = [data.classes[label] for label in found.labels.tolist()]
    _refuse_unseen(dict.fromkeys(names, settings.source), record.classes)
    return Split(found.sequences, torch.tensor([record.classes.index(name) for name in names]))


def _read_file(settings: DataSettings, record: LabelledRecord) -> Split:
    """All rows of a file, with the labels and tokens of the run."""
    rows = read_rows(settings.source, Columns(settings.text_column, settings.label_column))
    _refuse_unseen({row.label: row.where for row in reversed(rows)}, record.classes)
    sequences = []
    for row in rows:
        try:
            sequences.append(record.vocabulary.encode(row.text[: settings.length]))
        except ValueError as error:
            raise ValueError(f"{row.where}: {error}") from error
    return Split(tuple(sequences), torch.tensor([record.classes.index(row.label) for row in rows]))


def _refuse_unseen(places: dict[str, str], classes: tuple[str, ...]) -> None:
    """Refuse labels the model was not trained on; `places` says where each label is met first."""
    unseen = sorted(set(places) - set(classes))
    if unseen:
        constraint = f"among those the model was trained on ({', '.join(classes)})"
        raise ValueError(f"{places[unseen[0]]}: {must_be('labels', constraint, ', '.join(unseen))}")

"""The task "one label a token": parts of speech, entities, and whatever else a word of a sentence can be.

Batches are of like lengths and of so many words. Rare words are read as unknown ones now and then in training.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from saccade import config
from saccade.attention.record import Record
from saccade.data.batch_plans import Plan, by_tokens, endless
from saccade.data.ragged import Ragged
from saccade.data.rare_words import chances, hide
from saccade.data.sentences import read_sentences
from saccade.data.tagged import TaggedData, TaggedSettings, TaggedVocabulary, encode_sentences, load_tagged
from saccade.data.tagged_examples import TaggedBatch, TaggedSplit
from saccade.errors import must_be, whole_number
from saccade.models import Tagger, TaggerSettings
from saccade.models.sizes import check_longest
from saccade.nn import Loss, cross_entropy
from saccade.nn.auxiliary import with_auxiliary
from saccade.seeded import seeded
from saccade.shapes import Float, Int, Tensor
from saccade.tasks import run_folder
from saccade.tasks.run import Work, scored_split
from saccade.tasks.tagged_record import TaggedRecord
from saccade.tasks.tagging_scores import has_entities, score_entities, score_words
from saccade.training import TrainingSettings, accuracy
from saccade.training.evaluating import evaluating
from saccade.training.process import process_state


@dataclass(frozen=True)
class Recipe:
    """All that a run is made from; a TOML file holds the same.

    Attributes:
        data: which sentences.
        task: the name of this task.
        batch_tokens: at most so many words in a batch, padding counted. It stands in place of
            `training.batch_size`, as sentences are not equally long.
        hide_rare: how readily words are read as unknown in training: one that is there c times with the chance
            `hide_rare / (hide_rare + c)`; 0 never.
        model: the shape of the model.
        training: how it is trained.

    Raises:
        ValueError: a number that cannot be.
    """

    data: TaggedSettings
    task: Literal["tagging"] = "tagging"
    batch_tokens: int = 2048
    hide_rare: float = 0.25
    model: TaggerSettings = field(default_factory=TaggerSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        """Refuse what makes no batches."""
        whole_number("batch_tokens", self.batch_tokens)
        if self.training.batch_size != (default := TrainingSettings().batch_size):
            left_out = f"left as it is, {default}: batch_tokens says how large a batch is"
            raise ValueError(must_be("training.batch_size", left_out, self.training.batch_size))
        if not 0 <= self.hide_rare < float("inf"):
            raise ValueError(must_be("hide_rare", "at least 0 and finite", self.hide_rare))


@dataclass(frozen=True, eq=False)
class Prepared(Work):
    """A recipe with its data loaded and its model built.

    Attributes:
        recipe: what both were made from.
        data: the sentences.
        model: the model, with the weights that training starts from.
        hidden: the chance of each word to be read as unknown in training.
    """

    recipe: Recipe
    data: TaggedData
    model: Tagger
    hidden: Float[Tensor, " v"]

    @property
    def name(self) -> str:
        """Of the data, as the recipe has it."""
        return self.recipe.data.source

    @property
    def record(self) -> TaggedRecord:
        """What a run remembers of the sentences."""
        return TaggedRecord.of(self.data)

    def batches(self, start: int) -> Iterator[TaggedBatch]:
        """The sentences to train on, in new batches in each epoch."""
        settings, train = self.recipe.training, self.data.train

        def plan(epoch: int) -> Plan:
            return by_tokens(train.lengths, self.recipe.batch_tokens, seed=settings.seed, epoch=epoch)

        return (train.batch(rows) for rows in endless(plan, start))

    def loss(self, model: nn.Module, batch: TaggedBatch) -> Loss:
        """As the function `loss`, with some rare words hidden."""
        return loss(model, batch, hide(batch.words, self.hidden))

    def validate(self, model: nn.Module) -> float:
        """The F1 of entities, or the share of right tags."""
        split, tags = self.data.validation, self.data.vocabulary.tags
        predicted = predict(model, split, self.recipe.batch_tokens)
        if has_entities(tags):
            return score_entities(_named(predicted, split.tags, tags), _named(split.tags.values, split.tags, tags)).f1
        return accuracy(predicted, split.tags.values)

    def metrics(self) -> dict[str, object]:
        """The scores on the test split."""
        return _metrics(self.model, self.data.test, self.record, self.recipe, self.data.name, "test")

    def save(self, folder: Path) -> None:
        """Write the model; its vocabulary is in the folder since the run began."""
        self.model.save_pretrained(folder)


def prepare(recipe: Recipe, data: TaggedData | None = None) -> Prepared:
    """Load the sentences, and build the model with weights drawn from the recipe's seed.

    Args:
        recipe: what to prepare.
        data: the sentences of this recipe, where they are loaded already.

    Raises:
        ValueError, OSError: the data or the model cannot be as the recipe says.
    """
    data = load_tagged(recipe.data) if data is None else data
    if recipe.model.network == "transformer":
        longest = max(int(split.lengths.max()) for split in data.splits.values())
        check_longest("model.transformer", recipe.model.transformer, longest)
    with seeded(recipe.training.seed):
        model = _model(data.vocabulary, recipe.model)
    hidden = chances(data.train.words.values, data.vocabulary.words.size, recipe.hide_rare)
    return Prepared(recipe, data, model, hidden)


def loss(model: nn.Module, batch: TaggedBatch, words: Int[Tensor, "b n"] | None = None) -> Loss:
    """The cross-entropy of the tags of a batch, with the auxiliary losses of its mechanisms.

    Args:
        model: scores tags.
        batch: sentences and their tags.
        words: other ids of words than the batch has, such as with some of them hidden.
    """
    record = Record("losses")
    words = batch.words if words is None else words
    logits = model(words, batch.characters, batch.key_mask, record=record)
    return with_auxiliary(cross_entropy(logits, batch.tags, batch.key_mask), record["losses"])


def predict(model: nn.Module, split: TaggedSplit, batch_tokens: int = 2048) -> Int[Tensor, " words"]:
    """The best tag of every word, sentence after sentence. The model stays in the mode and place it was in.

    Sentences that are longer than a batch make one of their own.
    """
    found = torch.zeros_like(split.tags.values)
    with evaluating(model) as device:
        for rows in by_tokens(split.lengths, max(batch_tokens, int(split.lengths.max())), shuffle=False):
            batch = split.batch(rows).to(device)
            best = model(batch.words, batch.characters, batch.key_mask).argmax(-1).cpu()
            places, real = split.tags.places(rows)
            found[places[real]] = best[real]
    return found


def load(folder: Path) -> tuple[Tagger, TaggedRecord]:
    """The model of a run, in evaluation mode, and what its ids stand for.

    Raises:
        FileNotFoundError: the folder holds no run, or no trained model yet.
        ValueError: a file of it is damaged, or the vocabulary is that of another run.
    """
    run_folder.recipe_path(folder)
    run_folder.refuse_untrained(folder)
    model, record = Tagger.from_pretrained(folder), TaggedRecord.read(folder)
    if model.sizes != (found := _sizes(record.vocabulary)):
        raise ValueError(f"{folder}: {must_be('vocabulary', f'of the sizes {model.sizes} of the model', found)}")
    return model, record


def evaluate(
    folder: Path, source: str | None = None, overrides: Sequence[str] = (), split: str | None = None
) -> dict[str, object]:
    """Score the model of a run.

    Args:
        folder: the run.
        source: another file than the run's own, which is scored whole.
        overrides: only `"batch_tokens=..."` can be another than in training.
        split: `train`, `validation` or `test`, the last if not given; of the run's own sentences only.

    Returns:
        The fields of `Score` and, where tags are those of entities, of `EntityScore`, with `data` and `split`.

    Raises:
        FileNotFoundError: the folder holds no run, or no trained model yet, or there is no such file.
        ValueError: an unknown split, a split of another file, another override, a tag that the model does not know, or
            a file that is not readable.
    """
    for override in overrides:
        if override.partition("=")[0].strip() != "batch_tokens":
            raise ValueError(must_be("--set", "batch_tokens=..., as a model reads what it was trained on", override))
    part = scored_split(source, split)
    recipe = config.load(run_folder.recipe_path(folder), Recipe, overrides)
    model, record = load(folder)
    name = source or recipe.data.source
    examples = (
        load_tagged(recipe.data, record.vocabulary).splits[part] if source is None else _read(source, recipe, record)
    )
    return _metrics(model.to(process_state().device), examples, record, recipe, name, part)


def _read(source: str, recipe: Recipe, record: TaggedRecord) -> TaggedSplit:
    """All sentences of a file, with the ids of the run."""
    examples = encode_sentences(read_sentences(source, recipe.data.tag), record.vocabulary)
    if not len(examples):
        raise ValueError(must_be(source, "a file with sentences in it", "none"))
    return examples


def _metrics(
    model: nn.Module, split: TaggedSplit, record: TaggedRecord, recipe: Recipe, source: str, part: str
) -> dict[str, object]:
    predicted, tags = predict(model, split, recipe.batch_tokens), record.vocabulary.tags
    found = asdict(score_words(predicted, split.words, split.tags, torch.tensor(record.commonest)))
    if has_entities(tags):
        names = _named(predicted, split.tags, tags), _named(split.tags.values, split.tags, tags)
        found |= asdict(score_entities(*names))
    return {"data": source, "split": part, **{name: value for name, value in found.items() if value is not None}}


def _named(ids: Tensor, rows: Ragged, tags: Sequence[str]) -> list[list[str]]:
    """The names of tags, sentence by sentence."""
    return [[tags[int(i)] for i in row] for row in ids.split(rows.lengths.tolist())]


def _sizes(vocabulary: TaggedVocabulary) -> dict[str, int]:
    return {"words": vocabulary.words.size, "characters": vocabulary.characters.size, "tags": len(vocabulary.tags)}


def _model(vocabulary: TaggedVocabulary, settings: TaggerSettings) -> Tagger:
    return Tagger(**_sizes(vocabulary), settings=settings)

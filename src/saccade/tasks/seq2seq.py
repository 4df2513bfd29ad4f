"""The task "sequence to sequence": read one text and write another, such as its translation or how it is spoken.

The model is scored by what the right targets cost, and by what it writes itself with the recipe's decoding method.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from saccade import config
from saccade.attention.record import Record
from saccade.data.batch_plans import Plan, by_tokens, endless
from saccade.data.pair_encoding import ParallelVocabulary, encode_pairs
from saccade.data.pair_examples import PairBatch, PairSplit
from saccade.data.pairs import read_pairs
from saccade.data.parallel import ParallelData, ParallelSettings, load_parallel, load_part
from saccade.errors import must_be, unknown, whole_number
from saccade.models import Seq2Seq, Seq2SeqSettings
from saccade.models.sizes import check_longest, most_positions
from saccade.nn import Loss, cross_entropy
from saccade.nn.auxiliary import with_auxiliary
from saccade.seeded import seeded
from saccade.tasks import run_folder
from saccade.tasks.answers import to_method
from saccade.tasks.pair_record import PairRecord, read_vocabulary
from saccade.tasks.pair_scores import Scoring, scores, surprise
from saccade.tasks.run import Work, scored_split
from saccade.tasks.text_metrics import METRICS
from saccade.training import TrainingSettings
from saccade.training.process import process_state

OVERRIDES = ("method", "metrics", "batch_tokens")
"""What of a recipe may change when a model is scored."""


@dataclass(frozen=True)
class Recipe:
    """All that a run is made from; a TOML file holds the same.

    Attributes:
        task: the name of this task.
        data: which pairs of texts, and what their tokens are.
        model: the shape of the model.
        batch_tokens: how large a (micro-)batch is (on each device): the most tokens of its longer side, padding
            counted. It stands in place of `training.batch_size`, as sentences are not equally long.
        smoothing: the share of each target that is spread over all tokens in training (label smoothing).
        method: how texts are written that are scored, such as `beam(width=5, max_length=50, max_ratio=1.0)`.
        metrics: by what these are scored, names in `saccade.tasks.text_metrics.METRICS`; with none, nothing is written.
        training: how it is trained.

    Raises:
        ValueError: a number out of its range, an unknown method or metric, or settings that contradict each other.
    """

    data: ParallelSettings
    task: Literal["seq2seq"] = "seq2seq"
    model: Seq2SeqSettings = field(default_factory=Seq2SeqSettings)
    batch_tokens: int = 4096
    smoothing: float = 0.1
    method: str = 'beam(width=5, max_length=50, max_ratio=1.0, stop="full")'
    metrics: tuple[str, ...] = ("bleu", "chrf", "ter")
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        whole_number("batch_tokens", self.batch_tokens)
        if not 0 <= self.smoothing < 1:
            raise ValueError(must_be("smoothing", "at least 0 and below 1", self.smoothing))
        to_method(self.method)
        for name in self.metrics:
            if name not in METRICS:
                raise ValueError(unknown("metrics", name, METRICS))
        self._refuse_other_batches()
        self._refuse_too_long()

    def _refuse_other_batches(self) -> None:
        if self.training.batch_size != (default := TrainingSettings().batch_size):
            left_out = f"left as it is, {default}: batch_tokens says how large a batch is"
            raise ValueError(must_be("training.batch_size", left_out, self.training.batch_size))

    def _refuse_too_long(self) -> None:
        """Refuse limits that neither a batch nor a table of positions holds."""
        for name in ("max_source", "max_target"):
            longest = getattr(self.data, name)
            if longest > self.batch_tokens:
                raise ValueError(must_be("batch_tokens", f"at least data.{name} = {longest}", self.batch_tokens))
            limit = most_positions(self.model)
            if limit is not None and longest > limit:
                constraint = f"at least data.{name} = {longest}, as positions are learned"
                raise ValueError(must_be("model.max_length", constraint, limit))

    @property
    def scoring(self) -> Scoring:
        """How a model of this recipe is scored."""
        return Scoring(self.method, self.metrics, self.batch_tokens, self.training.seed)


@dataclass(frozen=True, eq=False)
class Prepared(Work):
    """A recipe with its data loaded and its model built.

    Attributes:
        recipe: what both were made from.
        data: the pairs.
        model: the model, with the weights that training starts from.
    """

    recipe: Recipe
    data: ParallelData
    model: Seq2Seq

    @property
    def name(self) -> str:
        """Of the data, as the recipe has it."""
        return self.recipe.data.source

    @property
    def record(self) -> PairRecord:
        """What a run remembers of the pairs."""
        return PairRecord.of(self.data)

    def batches(self, start: int) -> Iterator[PairBatch]:
        """Pairs of like lengths, in a new order in each epoch."""
        train, tokens, seed = self.data.train, self.recipe.batch_tokens, self.recipe.training.seed

        def plan(epoch: int) -> Plan:
            return by_tokens(train.lengths, tokens, seed=seed, epoch=epoch)

        return (train.batch(rows) for rows in endless(plan, start))

    def loss(self, model: nn.Module, batch: PairBatch) -> Loss:
        """As the function `loss`."""
        return loss(model, batch, self.recipe.smoothing)

    def validate(self, model: nn.Module) -> float:
        """The mean log-likelihood of a target token, in nats."""
        return -surprise(model, self.data.validation, self.recipe.batch_tokens).nats_per_token

    def metrics(self) -> dict[str, object]:
        """The scores on the test split."""
        return _metrics(self.model, self.data.vocabulary, self.data.test, self.recipe, self.name, "test")

    def save(self, folder: Path) -> None:
        """Write the model; what its tokens stand for is in the folder from the start."""
        self.model.save_pretrained(folder, self.data.vocabulary.source)


def prepare(recipe: Recipe, data: ParallelData | None = None) -> Prepared:
    """Load the pairs, and build the model with weights drawn from the recipe's seed.

    Args:
        recipe: what to prepare.
        data: the pairs of this recipe, where they are loaded already.

    Raises:
        ValueError, OSError: the data or the model cannot be as the recipe says.
    """
    data = load_parallel(recipe.data) if data is None else data
    check_longest("model", recipe.model, max(int(split.lengths.max()) for split in data.splits.values()))
    with seeded(recipe.training.seed):
        model = Seq2Seq(settings=recipe.model, **_sizes(data.vocabulary))
    return Prepared(recipe, data, model)


def loss(model: nn.Module, batch: PairBatch, smoothing: float = 0.0) -> Loss:
    """The label-smoothed cross-entropy of a batch, with the auxiliary losses of its mechanisms."""
    record = Record("losses")
    logits = model(batch.source, batch.inputs, batch.source_mask, batch.target_mask, record=record)
    return with_auxiliary(cross_entropy(logits, batch.target, batch.target_mask, smoothing), record["losses"])


def load(folder: Path) -> tuple[Seq2Seq, ParallelVocabulary]:
    """The model of a run, in evaluation mode, and what its tokens stand for.

    Raises:
        FileNotFoundError: the folder holds no run, or no trained model yet.
        ValueError: a file of it is damaged, or the vocabulary is that of another run.
    """
    recipe = config.load(run_folder.recipe_path(folder), Recipe)
    run_folder.refuse_untrained(folder)
    model, vocabulary = Seq2Seq.from_pretrained(folder), read_vocabulary(folder, recipe.data.write)
    if (sizes := _sizes(vocabulary)) != model.sizes:
        raise ValueError(f"{folder}: {must_be('vocabulary', f'that of the model, {model.sizes}', sizes)}")
    return model.to(process_state().device), vocabulary


def evaluate(
    folder: Path, source: str | None = None, overrides: Sequence[str] = (), split: str | None = None
) -> dict[str, object]:
    """Score the model of a run.

    Args:
        folder: the run.
        source: other pairs than the run's own, in files of the same form, which are scored whole.
        overrides: changes of how it is done (`OVERRIDES`), such as `'method="beam(width=1)"'`.
        split: `train`, `validation` or `test`, the last if not given; of the run's own pairs only.

    Returns:
        `data`, `split`, and all that `saccade.tasks.pair_scores.scores` gives.

    Raises:
        FileNotFoundError: the folder holds no run, or no trained model yet, or there are no such pairs.
        ValueError: an unknown split, a split of other pairs, another override, or pairs that are not readable.
    """
    for override in overrides:
        if override.partition("=")[0].strip() not in OVERRIDES:
            raise ValueError(must_be("--set", f"a change of {', '.join(OVERRIDES)}", override))
    part = scored_split(source, split)
    recipe = config.load(run_folder.recipe_path(folder), Recipe, overrides)
    model, vocabulary = load(folder)
    if source is None:
        pairs = load_part(recipe.data, part, vocabulary)
        return _metrics(model, vocabulary, pairs, recipe, recipe.data.source, part)
    return _metrics(model, vocabulary, _read(source, recipe.data, vocabulary), recipe, source, part)


def _sizes(vocabulary: ParallelVocabulary) -> dict[str, int]:
    """Those of a model of this vocabulary."""
    target = {"vocabulary_size": vocabulary.target.size}
    return target if vocabulary.shared else target | {"source_vocabulary_size": vocabulary.source.size}


def _read(source: str, settings: ParallelSettings, vocabulary: ParallelVocabulary) -> PairSplit:
    """All pairs of other files."""
    pairs = read_pairs(source, settings.read, settings.write)
    found = encode_pairs(pairs, vocabulary, settings.group_references)
    if not len(found):
        raise ValueError(must_be(source, "a file with pairs in it", "none"))
    return found


def _metrics(
    model: Seq2Seq, vocabulary: ParallelVocabulary, pairs: PairSplit, recipe: Recipe, source: str, split: str
) -> dict[str, Any]:
    return {"data": source, "split": split, **scores(model, vocabulary, pairs, recipe.scoring)}

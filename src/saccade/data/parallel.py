"""Sequence to sequence: pairs of texts as ids, with vocabularies learned from the pairs to train on.

One vocabulary serves both sides, or each has its own. With several targets each source begins with a tag that names
its own, such as `<2de>` (Johnson et al. 2017), so that one model writes them all.

Memory: files are read twice, line by line; of the training part the ids are held, of the others the texts too, since
scores are taken on texts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from saccade.data.pair_encoding import Limits, ParallelVocabulary, encode_pairs, encode_training, tags_of
from saccade.data.pair_examples import PairSplit
from saccade.data.pairs import Pair, read_pairs
from saccade.data.splitting import SPLITS, place, shares_with
from saccade.data.tally import Tally
from saccade.data.tokenizer_training import TokenizerSettings, make_tokenizer
from saccade.errors import must_be, unknown, whole_number


@dataclass(frozen=True)
class ParallelSettings:
    """Which pairs of texts, and how they become ids.

    Attributes:
        source: to train on: a table (.tsv, .csv, .jsonl), or the name of aligned line files with `{}` for the language,
            `"train.{}.gz"`.
        read: the column, or the language in the names of the files, that the model reads.
        write: those that it writes; several make one model for all.
        validation: pairs to choose by. Without it, a tenth of the source, drawn by a hash of what is read.
        test: pairs to report on, likewise.
        tokenizer: how texts become tokens, on both sides with one vocabulary.
        target_tokenizer: how targets become tokens, if they have a vocabulary of their own.
        max_source: the longest source to train on, in tokens, with tag and `<eos>`; validation and test are read whole.
        max_target: the longest target to train on, with `<eos>`.
        unfit: what becomes of training pairs that are longer, or empty on one side: `"skip"` counts and leaves them
            out, `"fail"` refuses the file.
        group_references: whether rows of validation and test that read the same are one example with several
            references.
        seed: what the held-out pairs are drawn from.

    Raises:
        ValueError: if a limit is less than 2, `write` is empty or has a name twice, or an option is unknown.
    """

    source: str
    read: str
    write: tuple[str, ...]
    validation: str | None = None
    test: str | None = None
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    target_tokenizer: TokenizerSettings | None = None
    max_source: int = 256
    max_target: int = 256
    unfit: Literal["skip", "fail"] = "skip"
    group_references: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no data."""
        for name in ("max_source", "max_target"):
            whole_number(name, getattr(self, name), least=2)
        if not self.write or len(set(self.write)) < len(self.write):
            raise ValueError(must_be("write", "one name or several different ones", self.write))
        if self.unfit not in ("skip", "fail"):
            raise ValueError(unknown("unfit", self.unfit, ("skip", "fail")))


@dataclass(frozen=True, eq=False)
class ParallelData:
    """A task from sequence to sequence.

    Attributes:
        name: the source, as in the settings.
        vocabulary: what the numbers mean.
        train: the pairs to learn from.
        validation: the pairs to choose by.
        test: the pairs to report on.
        found: what was skipped, with counts.
    """

    name: str
    vocabulary: ParallelVocabulary
    train: PairSplit
    validation: PairSplit
    test: PairSplit
    found: dict[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, PairSplit]:
        """The three by name."""
        return {part: getattr(self, part) for part in SPLITS}

    @property
    def facts(self) -> dict[str, str]:
        """What is printed beside every result: the data in words and counts."""
        splits, vocabulary = self.splits.items(), self.vocabulary
        sizes = f"{vocabulary.source.size:,} and {vocabulary.target.size:,} tokens"
        return {
            "data": self.name,
            "pairs": ", ".join(f"{name} {len(split):,}" for name, split in splits),
            "vocabulary": f"{vocabulary.source.size:,} tokens, shared" if vocabulary.shared else sizes,
            "source tokens": ", ".join(f"{name} {len(split.sources.values):,}" for name, split in splits),
            "target tokens": ", ".join(f"{name} {len(split.targets.values):,}" for name, split in splits),
            **self.found,
        }


def load_parallel(settings: ParallelSettings, vocabulary: ParallelVocabulary | None = None) -> ParallelData:
    """All three parts.

    Args:
        settings: the files, and how texts become ids.
        vocabulary: the one of an earlier run; nothing is then learned.

    Raises:
        ValueError: if files are not aligned or ragged (with the line), a part is empty, a side of a pair to evaluate is
            empty, or a training pair does not fit where that is refused.
        OSError: if a file cannot be read.
    """
    vocabulary = vocabulary or _learn(settings)
    tally = Tally()
    limits = Limits(settings.max_source, settings.max_target, settings.unfit == "fail")
    parts = {"train": encode_training(_part(settings, "train"), vocabulary, limits, tally)}
    for part in SPLITS[1:]:
        parts[part] = encode_pairs(_part(settings, part), vocabulary, settings.group_references)
    for part, split in parts.items():
        _not_none(settings, part, split)
    tally.warn()
    return ParallelData(settings.source, vocabulary, **parts, found=tally.facts)


def load_part(settings: ParallelSettings, part: str, vocabulary: ParallelVocabulary) -> PairSplit:
    """One part alone, to be scored: read whole, with its texts, the pairs to train on likewise.

    Args:
        settings: the files.
        part: `train`, `validation` or `test`.
        vocabulary: of the model.

    Raises:
        ValueError: an unknown or empty part, files that are not aligned or ragged, or an empty side; with the line.
        OSError: if a file cannot be read.
    """
    if part not in SPLITS:
        raise ValueError(unknown("split", part, SPLITS))
    return _not_none(settings, part, encode_pairs(_part(settings, part), vocabulary, settings.group_references))


def _not_none(settings: ParallelSettings, part: str, split: PairSplit) -> PairSplit:
    if not len(split):
        raise ValueError(_none_in(settings, part))
    return split


def _learn(settings: ParallelSettings) -> ParallelVocabulary:
    """Vocabularies from the pairs to train on alone."""
    if next(_part(settings, "train"), None) is None:
        raise ValueError(_none_in(settings, "train"))
    tags = tags_of(settings.write)
    sources = (pair.source for pair in _sources_once(settings))
    targets = (pair.target for pair in _part(settings, "train"))
    if settings.target_tokenizer is None:
        shared = make_tokenizer(settings.tokenizer, chain(sources, targets), tags)
        return ParallelVocabulary(shared, shared, settings.write)
    own = make_tokenizer(settings.target_tokenizer, targets)
    return ParallelVocabulary(make_tokenizer(settings.tokenizer, sources, tags), own, settings.write)


def _sources_once(settings: ParallelSettings) -> Iterator[Pair]:
    """The pairs of one side, so that a source counts once however many targets it has."""
    return (pair for pair in _part(settings, "train") if pair.side == settings.write[0])


def _part(settings: ParallelSettings, part: str) -> Iterator[Pair]:
    """The pairs of one part, held out of the source where it has no file."""
    own = settings.source if part == "train" else getattr(settings, part)
    pairs = read_pairs(own or settings.source, settings.read, settings.write)
    held_out = [each for each in SPLITS[1:] if getattr(settings, each) is None]
    if own is not None and not (part == "train" and held_out):
        return pairs
    shares = shares_with(held_out)
    return (pair for pair in pairs if place(settings.seed, pair.source.encode(), shares) == part)


def _none_in(settings: ParallelSettings, part: str) -> str:
    source = getattr(settings, part, None) or settings.source
    return must_be(source, f"a file with pairs in it to make the part {part}", "none")

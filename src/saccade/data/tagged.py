"""Words with a tag each, as ids: each word, the characters it is written with, and its tag.

Words and characters that were not seen often enough in training are `<unk>`; the tags are those of all files that are
given, since an annotation scheme is no secret of its test set. Memory: all sentences are held while they are read
(some hundred bytes a word), for parsing them twice would take longer; afterwards the ids.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal

from saccade.data.ragged import Ragged
from saccade.data.sentences import Field, Sentence, entity_faults, read_sentences
from saccade.data.splitting import SPLITS, place, shares_with
from saccade.data.tagged_examples import NO_TAG, TaggedSplit
from saccade.data.tally import Tally
from saccade.data.tokenizer import UNK, Tokenizer
from saccade.data.tokenizer_training import TokenizerSettings, make_tokenizer, make_units
from saccade.errors import must_be, unknown, whole_number
from saccade.writing import write


@dataclass(frozen=True)
class TaggedSettings:
    """Which tagged sentences, and how words become ids.

    Attributes:
        source: a file to train on: .conllu, or .conll, .bio, .iob or .tsv with a word and a tag a line; plain or .gz.
        validation: the same to choose by. Without it, a tenth of the source, drawn by a hash of the sentence.
        test: the same to report on.
        tag: of CoNLL-U: the column to learn, `"upos"` or `"xpos"`.
        min_count: how often a word must be seen in training to get an id of its own.
        size: at most so many words.
        lowercase: whether words are looked up in small letters; their characters stay as they are.
        letters: at most so many characters of a word are read.
        max_words: the longest sentence to train on; others are read whole.
        unfit: what becomes of longer ones: `"skip"` counts and leaves them out, `"fail"` refuses the file.
        seed: what the held-out sentences are drawn from.

    Raises:
        ValueError: if a number is less than 1 or an option is unknown.
    """

    source: str
    validation: str | None = None
    test: str | None = None
    tag: Field = "upos"
    min_count: int = 2
    size: int = 30_000
    lowercase: bool = True
    letters: int = 24
    max_words: int = 512
    unfit: Literal["skip", "fail"] = "skip"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no data."""
        for name in ("min_count", "size", "letters", "max_words"):
            whole_number(name, getattr(self, name))
        for name, options in (("tag", ("upos", "xpos")), ("unfit", ("skip", "fail"))):
            if getattr(self, name) not in options:
                raise ValueError(unknown(name, getattr(self, name), options))


@dataclass(frozen=True)
class TaggedVocabulary:
    """What the numbers mean; all that a run has to keep of its data.

    Attributes:
        words: each word is one token.
        characters: of a word.
        tags: what the tag ids stand for.
        letters: how many characters of a word are read.
    """

    words: Tokenizer
    characters: Tokenizer
    tags: tuple[str, ...]
    letters: int

    def save(self, folder: Path) -> None:
        """Write it into a folder, as `words.json` and `characters.json` (each a tokenizer.json) and `tags.json`."""
        self.words.save(folder / "words.json")
        self.characters.save(folder / "characters.json")
        write(folder / "tags.json", json.dumps({"letters": self.letters, "tags": self.tags}, ensure_ascii=False))

    @classmethod
    def read(cls, folder: Path) -> "TaggedVocabulary":
        """The vocabulary in a folder.

        Raises:
            FileNotFoundError, ValueError: if a file is missing or is not what `save` wrote.
        """
        words, characters = (Tokenizer.read(folder / f"{name}.json") for name in ("words", "characters"))
        try:
            state = json.loads((folder / "tags.json").read_text(encoding="utf-8"))
            return cls(words, characters, tuple(map(str, state["tags"])), int(state["letters"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder / 'tags.json'} must be the tags of a vocabulary: {error!r}") from None


@dataclass(frozen=True, eq=False)
class TaggedData:
    """A tagging task.

    Attributes:
        name: the source, as in the settings.
        vocabulary: what the numbers mean.
        train: the sentences to learn from.
        validation: the sentences to choose by.
        test: the sentences to report on.
        found: what was skipped or looks wrong, with counts.
    """

    name: str
    vocabulary: TaggedVocabulary
    train: TaggedSplit
    validation: TaggedSplit
    test: TaggedSplit
    found: dict[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, TaggedSplit]:
        """The three by name."""
        return {part: getattr(self, part) for part in SPLITS}

    @property
    def facts(self) -> dict[str, str]:
        """What is printed beside every result: the data in words and counts."""
        splits = self.splits.items()
        unseen = {name: (split.words.values == UNK).double().mean().item() for name, split in splits}
        return {
            "data": self.name,
            "sentences": ", ".join(f"{name} {len(split):,}" for name, split in splits),
            "words": ", ".join(f"{name} {len(split.words.values):,}" for name, split in splits),
            "vocabulary": f"{self.vocabulary.words.size:,} words, {self.vocabulary.characters.size:,} characters",
            "unknown words": ", ".join(f"{name} {share:.1%}" for name, share in unseen.items()),
            "tags": ", ".join(self.vocabulary.tags),
            **self.found,
        }


def load_tagged(settings: TaggedSettings, vocabulary: TaggedVocabulary | None = None) -> TaggedData:
    """All three parts.

    Args:
        settings: the files, and how words become ids.
        vocabulary: the one of an earlier run; nothing is then learned.

    Raises:
        ValueError: if a file is not as its ending promises (with the line), a part is empty, a sentence is too long
            where that is refused, or a tag is not in the given vocabulary.
        OSError: if a file cannot be read.
    """
    tally = Tally()
    parts = _read(settings)
    for part, sentences in parts.items():
        _count_faults(sentences, part, tally)
    parts["train"] = [each for each in parts["train"] if _fits(each, settings, tally)]
    for part, sentences in parts.items():
        if not sentences:
            source = getattr(settings, part, None) or settings.source
            raise ValueError(must_be(source, f"a file with sentences in it to make the part {part}", "none"))
    vocabulary = vocabulary or _learn(parts, settings)
    splits = {part: encode_sentences(sentences, vocabulary) for part, sentences in parts.items()}
    tally.warn()
    return TaggedData(settings.source, vocabulary, **splits, found=tally.facts)


def encode_sentences(sentences: Iterable[Sentence], vocabulary: TaggedVocabulary) -> TaggedSplit:
    """Sentences as ids, such as those of another file that `read_sentences` reads.

    Raises:
        ValueError: if a tag is not in the vocabulary, with its place: the first line of its sentence, and which word.
    """
    ids = {tag: i for i, tag in enumerate(vocabulary.tags)}
    words: list[str] = []
    tags: list[list[int]] = []
    for sentence in sentences:
        for i, tag in enumerate(sentence.tags, start=1):
            if tag not in ids:
                raise ValueError(f"{sentence.where}, word {i}: {unknown('tag', tag, ids)}")
        words += sentence.words
        tags.append([ids[tag] for tag in sentence.tags])
    return _encoded(words, Ragged.of(tags), vocabulary)


def encode_untagged(sentences: Iterable[Sequence[str]], vocabulary: TaggedVocabulary) -> TaggedSplit:
    """Sentences without tags as ids; in place of each tag stands `NO_TAG`."""
    words: list[str] = []
    tags: list[list[int]] = []
    for sentence in sentences:
        words += sentence
        tags.append([NO_TAG] * len(sentence))
    return _encoded(words, Ragged.of(tags), vocabulary)


def _encoded(words: list[str], rows: Ragged, vocabulary: TaggedVocabulary) -> TaggedSplit:
    """All words as ids, cut into the rows of their tags."""
    return TaggedSplit(
        Ragged(vocabulary.words.encode_all(words).values, rows.ends),
        vocabulary.characters.encode_all(word[: vocabulary.letters] for word in words),
        rows,
    )


def _read(settings: TaggedSettings) -> dict[str, list[Sentence]]:
    """The sentences of each part; what has no file is held out of the source."""
    files = {"train": settings.source, "validation": settings.validation, "test": settings.test}
    parts = {part: list(read_sentences(file, settings.tag)) for part, file in files.items() if file is not None}
    held_out = [part for part in SPLITS if part not in parts]
    shares = shares_with(held_out)
    source = parts.pop("train")
    divided: dict[str, list[Sentence]] = {part: [] for part in shares}
    for sentence in source:
        divided[place(settings.seed, "\n".join(sentence.words).encode(), shares)].append(sentence)
    return {part: (divided | parts)[part] for part in SPLITS}


def _learn(parts: dict[str, list[Sentence]], settings: TaggedSettings) -> TaggedVocabulary:
    """The words and characters of the training sentences, and the tags of all."""
    options = TokenizerSettings("words", settings.size, settings.min_count, settings.lowercase)
    words = make_units(chain.from_iterable(each.words for each in parts["train"]), options)
    texts = ("".join(each.words) for each in parts["train"])
    characters = make_tokenizer(TokenizerSettings("characters"), texts)
    tags = {tag for sentences in parts.values() for each in sentences for tag in each.tags}
    return TaggedVocabulary(words, characters, tuple(sorted(tags)), settings.letters)


def _fits(sentence: Sentence, settings: TaggedSettings, tally: Tally) -> bool:
    """Whether a sentence is short enough to train on."""
    if len(sentence.words) <= settings.max_words:
        return True
    if settings.unfit == "fail":
        constraint = f"at most max_words = {settings.max_words} words long"
        raise ValueError(f"{sentence.where}: {must_be('the sentence', constraint, len(sentence.words))}")
    tally.note(f"train: sentences longer than max_words = {settings.max_words}, skipped", sentence.where)
    return False


def _count_faults(sentences: Iterable[Sentence], part: str, tally: Tally) -> None:
    """Tags that go on with an entity that never began are counted, and read as they stand."""
    for sentence in sentences:
        for i in entity_faults(sentence.tags):
            tally.note(f"{part}: I- tags that continue no entity", f"{sentence.where}, word {i + 1}")

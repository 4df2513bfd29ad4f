"""One long row of tokens from text files, for language models: a beginning, the text, and ends of documents.

The row begins with `<bos>`, so that its first token has something to follow. `<eos>` stands behind each document where
documents are told apart: by a pattern that their first lines match, or because each is a file of its own.

Memory: files are read line by line, twice where a vocabulary is learned; what is held is the tokens, two or four bytes
each (eight while they are read). A text whose tokens do not fit in memory cannot be read so.
"""

import glob
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import torch

from saccade.data.lines import read_lines
from saccade.data.ragged import id_dtype
from saccade.data.splitting import HELD_OUT, SPLITS
from saccade.data.tokenizer import BOS, EOS, UNK, Tokenizer
from saccade.data.tokenizer_training import TokenizerSettings, make_tokenizer
from saccade.errors import must_be
from saccade.shapes import Int, Tensor

Line = tuple[int, str]


@dataclass(frozen=True)
class StreamSettings:
    """Which text a language model learns, and what its tokens are.

    Attributes:
        source: a file to train on, plain or .gz; or several by a pattern such as `"books/*.txt"`, in the order of their
            names, each a document.
        validation: the same to choose by. Without it, the source's last lines: a tenth, before those for the test.
        test: the same to report on. Without it, the source's last tenth.
        document: a regular expression; a line that begins like this begins a document, such as `"# "`.
        tokenizer: how text becomes tokens. It is learned from the training text alone.

    Raises:
        ValueError: if `document` is no regular expression.
    """

    source: str
    validation: str | None = None
    test: str | None = None
    document: str | None = None
    tokenizer: TokenizerSettings = field(default_factory=lambda: TokenizerSettings("bytes"))

    def __post_init__(self) -> None:
        """Refuse a pattern that cannot be used."""
        try:
            re.compile(self.document or "")
        except re.error as error:
            raise ValueError(f"{must_be('document', 'a regular expression', self.document)}: {error}") from None


@dataclass(frozen=True, eq=False)
class Stream:
    """A text as tokens.

    Attributes:
        tokens: `<bos>` and the text, int16 or int32.
        bytes: of the text in UTF-8, for bits per byte.
        characters: of the text.
        documents: how many there are; 1 where they are not told apart.
    """

    tokens: Int[Tensor, " n"]
    bytes: int
    characters: int
    documents: int

    @property
    def unknown(self) -> float:
        """The share of the tokens that are `<unk>`, from 0 to 1."""
        return (self.tokens == UNK).double().mean().item()


@dataclass(frozen=True, eq=False)
class StreamData:
    """A text to train on, one to choose by and one to report on.

    Attributes:
        name: the source, as in the settings.
        tokenizer: what the tokens stand for.
        train: the text to learn from.
        validation: the text to choose by.
        test: the text to report on.
    """

    name: str
    tokenizer: Tokenizer
    train: Stream
    validation: Stream
    test: Stream

    @property
    def splits(self) -> dict[str, Stream]:
        """The three by name."""
        return {part: getattr(self, part) for part in SPLITS}

    @property
    def facts(self) -> dict[str, str]:
        """What is printed beside every result: the data in words and counts."""
        splits = self.splits.items()
        return {
            "data": self.name,
            "vocabulary": f"{self.tokenizer.size:,} tokens",
            "tokens": ", ".join(f"{name} {len(split.tokens) - 1:,}" for name, split in splits),
            "bytes": ", ".join(f"{name} {split.bytes:,}" for name, split in splits),
            "documents": ", ".join(f"{name} {split.documents:,}" for name, split in splits),
            "unknown": ", ".join(f"{name} {split.unknown:.2%}" for name, split in splits),
        }


def load_streams(settings: StreamSettings, tokenizer: Tokenizer | None = None) -> StreamData:
    """All three texts.

    Args:
        settings: the files, and how text becomes tokens.
        tokenizer: the one of an earlier run; nothing is then learned.

    Raises:
        ValueError: if a file is no UTF-8 (with the line), or a text is empty.
        OSError: if a file cannot be read.
    """
    shares = _shares(settings)
    if tokenizer is None:
        if next(_part(settings, "train", shares), None) is None:
            raise ValueError(_none_in(settings.source, "train"))
        texts = (line for _, line in _part(settings, "train", shares))
        tokenizer = make_tokenizer(settings.tokenizer, texts, whole=False)
    streams = {}
    for part in SPLITS:
        source = (part != "train" and getattr(settings, part)) or settings.source
        marked = _is_marked(source, settings.document)
        streams[part] = _encode(_part(settings, part, shares), tokenizer, marked, _none_in(source, part))
    return StreamData(settings.source, tokenizer, **streams)


def load_stream(source: str, tokenizer: Tokenizer, document: str | None = None) -> Stream:
    """One text, such as another one to score a model on; arguments and errors as in `StreamSettings`."""
    none = must_be(source, "a file with text in it", "none")
    return _encode(_numbered(source, document), tokenizer, _is_marked(source, document), none)


def _shares(settings: StreamSettings) -> dict[str, tuple[float, float]]:
    """From where to where each part goes in the source, as shares of it; only of parts without a file."""
    test = 1.0 if settings.test is not None else 1 - HELD_OUT
    train = test if settings.validation is not None else test - HELD_OUT
    shares = {"train": (0.0, train), "validation": (train, test), "test": (test, 1.0)}
    return {part: share for part, share in shares.items() if part == "train" or getattr(settings, part) is None}


def _part(settings: StreamSettings, part: str, shares: dict[str, tuple[float, float]]) -> Iterator[Line]:
    """The lines of one of the three texts."""
    own = settings.source if part == "train" else getattr(settings, part)
    lines = _numbered(own or settings.source, settings.document)
    if shares.get(part, (0.0, 1.0)) == (0.0, 1.0):
        return lines
    total = sum(len(line) for _, line in _numbered(settings.source, settings.document))
    return _between(lines, *(round(share * total) for share in shares[part]))


def _between(lines: Iterable[Line], first: int, last: int) -> Iterator[Line]:
    """The lines that begin between two counts of characters."""
    begin = 0
    for number, line in lines:
        if first <= begin < last:
            yield number, line
        begin += len(line)


def _numbered(source: str, document: str | None) -> Iterator[Line]:
    """The lines of one file or several, each with the number of its document."""
    begins = re.compile(document) if document else None
    number, filled = 0, False
    for path in _paths(source):
        for line in read_lines(path):
            if filled and begins and begins.match(line):
                number += 1
            filled = filled or bool(line.strip())
            yield number, line
        # Lines before the first that has something in it make no document of their own.
        number, filled = number + 1, False


def _paths(source: str) -> list[Path]:
    """The file of this name, or the files that fit the pattern; a missing one is refused where it is opened."""
    path = Path(source).expanduser()
    if path.exists() or not glob.has_magic(source):
        return [path]
    found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).is_file()]
    if not found:
        raise FileNotFoundError(must_be("source", "the name of a file, or a pattern that some file fits", source))
    return found


def _is_marked(source: str, document: str | None) -> bool:
    """Whether the ends of documents are: where they are told apart."""
    return document is not None or len(_paths(source)) > 1


def _encode(lines: Iterable[Line], tokenizer: Tokenizer, marked: bool, none: str) -> Stream:
    """Lines as a stream, with the ends of documents if they are marked; `none` is said where there is no text."""
    count = _Count()
    begin, end = (torch.tensor([i], dtype=id_dtype(tokenizer.size)) for i in (BOS, EOS))
    pieces, documents = [begin], 0
    for _, document in groupby(lines, key=lambda line: line[0]):
        pieces.append(tokenizer.encode_all(count.through(line for _, line in document)).values)
        pieces += [end] if marked else []
        documents += 1
    if not count.bytes:
        raise ValueError(none)
    return Stream(torch.cat(pieces), count.bytes, count.characters, documents if marked else 1)


def _none_in(source: str, part: str) -> str:
    return must_be(source, f"a file with text in it to make the part {part}", "none")


class _Count:
    """How much text went through."""

    def __init__(self) -> None:
        self.bytes = 0
        self.characters = 0

    def through(self, texts: Iterable[str]) -> Iterator[str]:
        for text in texts:
            self.bytes += len(text.encode())
            self.characters += len(text)
            yield text

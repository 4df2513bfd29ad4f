"""Vocabularies: which numbers a model reads for a text.

The ids of a vocabulary are `0 .. size - 1`, and the last one is the padding, which no text contains.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from saccade.errors import must_be, unknown
from saccade.shapes import Int, Tensor

MOST_WORDS = 2**15 - 3
"""What ids of 16 bits can name, with the unknown word and the padding."""

_WORD = re.compile(r"\w+|[^\w\s]")


class Vocabulary(ABC):
    """A two-way map between texts and rows of ids. Ids are int16, so that a large data set fits in memory."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many ids there are, the padding counted."""

    @property
    def pad_id(self) -> int:
        """The id behind the end of a shorter example."""
        return self.size - 1

    @abstractmethod
    def encode(self, text: str | bytes) -> Int[Tensor, " n"]:
        """The ids of a text, int16."""

    @abstractmethod
    def decode(self, ids: Int[Tensor, " n"]) -> str:
        """The text of some ids, without the padding."""

    @abstractmethod
    def to_dict(self) -> dict[str, object]:
        """A value for JSON that `vocabulary_from_dict` reads back."""


@dataclass(frozen=True)
class ByteVocabulary(Vocabulary):
    """The 256 bytes; a text is its UTF-8. Nothing is unknown, and nothing has to be learned from the data."""

    @property
    def size(self) -> int:
        """256 bytes and the padding."""
        return 257

    def encode(self, text: str | bytes) -> Int[Tensor, " n"]:
        """One id a byte."""
        data = text.encode() if isinstance(text, str) else text
        # A buffer of no bytes is refused by torch, and a `bytes` is read-only, which it warns about.
        return torch.frombuffer(bytearray(data), dtype=torch.uint8).to(torch.int16) if data else _row([])

    def decode(self, ids: Int[Tensor, " n"]) -> str:
        """The text; bytes that are no UTF-8, such as a letter cut in half, show as the replacement sign."""
        return bytes(ids[ids != self.pad_id].tolist()).decode(errors="replace")

    def to_dict(self) -> dict[str, object]:
        """Only the kind: all byte vocabularies are equal."""
        return {"kind": "bytes"}


@dataclass(frozen=True)
class SymbolVocabulary(Vocabulary):
    """A fixed list of symbols; a text is symbols with white space between them.

    Attributes:
        symbols: the symbols in the order of their ids, each once and without white space.

    Raises:
        ValueError: if a symbol comes twice or has white space in it; from `encode`, if a symbol is unknown.
    """

    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse symbols that could not be read back."""
        if len(set(self.symbols)) < len(self.symbols) or any(s.split() != [s] for s in self.symbols):
            raise ValueError(must_be("symbols", "different, not empty and without white space", self.symbols))

    @property
    def size(self) -> int:
        """The symbols and the padding."""
        return len(self.symbols) + 1

    def encode(self, text: str | bytes) -> Int[Tensor, " n"]:
        """One id a symbol."""
        symbols = (text if isinstance(text, str) else text.decode()).split()
        try:
            return _row([self._ids[symbol] for symbol in symbols])
        except KeyError as error:
            raise ValueError(unknown("symbol", error.args[0], self.symbols)) from None

    def decode(self, ids: Int[Tensor, " n"]) -> str:
        """The symbols with one space between them."""
        return " ".join(self.symbols[i] for i in ids[ids != self.pad_id].tolist())

    def to_dict(self) -> dict[str, object]:
        """The kind and the symbols in order."""
        return {"kind": "symbols", "symbols": list(self.symbols)}

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols)}


@dataclass(frozen=True)
class WordVocabulary(Vocabulary):
    """The commonest words of some texts; all others are one unknown word.

    A word is letters and digits that stand together, or any other sign; white space only separates.

    Attributes:
        words: in the order of their ids, each once. The unknown word and the padding come behind them.

    Raises:
        ValueError: if a word comes twice, or there are more than ids of 16 bits can name.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse words that could not be told apart."""
        if len(set(self.words)) < len(self.words) or len(self.words) > MOST_WORDS:
            raise ValueError(must_be("words", f"at most {MOST_WORDS:,} and different", f"{len(self.words):,} words"))

    @classmethod
    def of(cls, texts: Iterable[bytes], size: int) -> "WordVocabulary":
        """The commonest words of some texts, at most so many; of equally common ones, the first by their letters."""
        counts = Counter(word for text in texts for word in words_of(text))
        ordered = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(tuple(ordered[:size]))

    @property
    def size(self) -> int:
        """The words, the unknown word and the padding."""
        return len(self.words) + 2

    def encode(self, text: str | bytes) -> Int[Tensor, " n"]:
        """One id a word; a text of white space alone is one unknown word."""
        unknown_word = len(self.words)
        return _row([self._ids.get(word, unknown_word) for word in words_of(text)] or [unknown_word])

    def decode(self, ids: Int[Tensor, " n"]) -> str:
        """The words with one space between them, `<unk>` for an unknown one."""
        return " ".join((*self.words, "<unk>")[i] for i in ids[ids != self.pad_id].tolist())

    def to_dict(self) -> dict[str, object]:
        """The kind and the words in order."""
        return {"kind": "words", "words": list(self.words)}

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}


def words_of(text: str | bytes) -> list[str]:
    """The words of a text; a letter that was cut in half at its end is left out."""
    return _WORD.findall(text if isinstance(text, str) else text.decode(errors="ignore"))


def vocabulary_from_dict(state: Mapping[str, object]) -> Vocabulary:
    """The vocabulary that `to_dict` described.

    Raises:
        ValueError: if no vocabulary is of this kind.
    """
    match state:
        case {"kind": "bytes"}:
            return ByteVocabulary()
        case {"kind": "symbols", "symbols": list(symbols)}:
            return SymbolVocabulary(tuple(symbols))
        case {"kind": "words", "words": list(words)}:
            return WordVocabulary(tuple(words))
        case _:
            raise ValueError(unknown("kind of vocabulary", str(state.get("kind")), ["bytes", "symbols", "words"]))


def _row(ids: list[int]) -> Int[Tensor, " n"]:
    return torch.tensor(ids, dtype=torch.int16)

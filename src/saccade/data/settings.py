"""What a user may say about the data: one flat value, so that it can be written in a TOML file."""

from dataclasses import dataclass
from typing import Literal

from saccade.data.vocabulary import MOST_WORDS
from saccade.errors import must_be, unknown

TOKENS = ("bytes", "words")

_LEAST = {
    "length": 1,
    "words": 1,
    "per_class": 10,
    "train_size": 1,
    "validation_size": 1,
    "test_size": 1,
    "min_length": 4,
    "max_length": 4,
    "max_depth": 2,
    "max_arguments": 2,
}


@dataclass(frozen=True)
class DataSettings:
    """Which data, and how much of it. An option that the source does not read must keep its default.

    Attributes:
        source: `"stdlib"` (the Python standard library's own sources), `"listops"` (generated), the path of a
            file with a text and a label in each row, or a data set of the Hugging Face hub, `"hub:NAME"` or
            `"hub:NAME:CONFIG"`.
        seed: what the split of the data and the generated expressions are drawn from.
        length: of stdlib, files and hub: the longest example in bytes. Longer texts are cut.
        per_class: of stdlib: at most so many passages of one package, over all three splits.
        text_column: of files and hub: the column (or JSON key) of the text.
        label_column: of files and hub: the column (or JSON key) of the label.
        tokens: of files and hub: what a model reads one by one, `bytes` or `words`.
        words: of files and hub: the most words that are told apart, the commonest in training; if tokens are words.
        validation: of files: a second file to validate on; of hub: the name of the split, if that is not
            `"validation"`. Where there is none, a tenth of the training examples is held out.
        test: the same for the examples to test on.
        train_size: of listops: how many expressions to train on.
        validation_size: of listops: how many to validate on.
        test_size: of listops: how many to test on.
        min_length: of listops: the shortest expression in tokens.
        max_length: of listops: the longest expression in tokens.
        max_depth: of listops: the depth of the deepest digit; operations nest one less deep.
        max_arguments: of listops: the most arguments of one operation.

    Raises:
        ValueError: if a number is too small or too large, tokens are something else, or `max_length` is less than
            `min_length`.
    """

    source: str = "stdlib"
    seed: int = 0
    length: int = 1024
    per_class: int = 300
    text_column: str = "text"
    label_column: str = "label"
    tokens: Literal["bytes", "words"] = "bytes"
    words: int = 20_000
    validation: str | None = None
    test: str | None = None
    train_size: int = 4000
    validation_size: int = 500
    test_size: int = 1000
    min_length: int = 500
    max_length: int = 2000
    max_depth: int = 10
    max_arguments: int = 10

    def __post_init__(self) -> None:
        """Refuse sizes that no data could have."""
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(must_be(name, f"at least {least}", getattr(self, name)))
        if self.max_length < self.min_length:
            raise ValueError(must_be("max_length", f"at least min_length = {self.min_length}", self.max_length))
        if self.words > MOST_WORDS:
            raise ValueError(must_be("words", f"at most {MOST_WORDS:,}", self.words))
        if self.tokens not in TOKENS:
            raise ValueError(unknown("tokens", self.tokens, TOKENS))

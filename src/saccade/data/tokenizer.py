"""Tokenizers: a text as a row of ids and back, with a name and an id of its own for all that is no text.

Every kind (bytes, characters, words, BPE) is a `tokenizers.Tokenizer`, so that one file, `tokenizer.json`, holds it
and other programs read it too. `tokenizer_training` makes them.

| id | 0 | 1 | 2 | 3 | 4 | 5 | 6 ... |
|---|---|---|---|---|---|---|---|
| | `<pad>` | `<bos>` | `<eos>` | `<unk>` | `<mask>` | `<blank>` | tags such as `<2de>`, then what texts are made of |

No text yields one of these but `<unk>`: a text that has `<mask>` written in it is made of the signs `<`, `m`, ...
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import tokenizers
import torch

from saccade.data.ragged import Ragged, id_dtype
from saccade.errors import must_be, unknown
from saccade.shapes import Int, Tensor
from saccade.writing import write

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>", "<mask>", "<blank>")
PAD, BOS, EOS, UNK, MASK, BLANK = range(len(SPECIALS))


@dataclass(frozen=True)
class Identity:
    """What tells one vocabulary from another.

    Attributes:
        size: how many ids it has.
        digest: of all its tokens in the order of their ids.
    """

    size: int
    digest: str

    def check(self, found: "Tokenizer", where: str) -> None:
        """Refuse another vocabulary than the one that was meant, such as that of another run.

        Raises:
            ValueError: naming both, by size or, where this is the same, by digest.
        """
        other = found.identity
        if other.size != self.size:
            meant = f"that of the model, {self.size:,} tokens"
            raise ValueError(f"{where}: {must_be('vocabulary', meant, other.size)}")
        if other != self:
            meant = f"that of the model, with digest {self.digest[:12]}"
            raise ValueError(f"{where}: {must_be('vocabulary', meant, other.digest[:12])}")


class Tokenizer:
    """A vocabulary and how a text is cut into its tokens.

    Args:
        inner: a `tokenizers.Tokenizer` with `SPECIALS` as its first tokens.
        where: the place it comes from, for messages.

    Raises:
        ValueError: if these tokens do not have these ids.
    """

    def __init__(self, inner: tokenizers.Tokenizer, where: str = "tokenizer") -> None:
        first = tuple(inner.id_to_token(i) for i in range(len(SPECIALS)))
        if first != SPECIALS:
            raise ValueError(must_be(where, f"a tokenizer whose first tokens are {', '.join(SPECIALS)}", first))
        # Texts are data: what looks like a special token in them is none. This is not kept in the file.
        inner.encode_special_tokens = True
        self._inner = inner
        self._reserved = torch.tensor(sorted(set(inner.get_added_tokens_decoder()) - {UNK}))

    @property
    def size(self) -> int:
        """How many ids there are."""
        return self._inner.get_vocab_size()

    def tag(self, name: str) -> int:
        """The id of a tag that the tokenizer was made with, such as `"<2de>"`.

        Raises:
            ValueError: if there is none of this name.
        """
        added = {token.content: i for i, token in self._inner.get_added_tokens_decoder().items()}
        if name not in added:
            raise ValueError(unknown("tag", name, set(added) - set(SPECIALS)))
        return added[name]

    def token(self, i: int) -> str | None:
        """How a token is written in the vocabulary; None past its end."""
        return self._inner.id_to_token(i)

    def encode(self, text: str) -> Int[Tensor, " n"]:
        """The ids of a text, without begin or end."""
        return self.encode_all([text]).values

    def encode_all(self, texts: Iterable[str], at_once: int = 1000) -> Ragged:
        """The ids of many texts, so many at a time: the texts are never all held."""
        left = iter(texts)
        chunks = iter(lambda: list(islice(left, at_once)), [])
        rows = (encoded.ids for chunk in chunks for encoded in self._inner.encode_batch_fast(chunk))
        found = Ragged.of(rows, id_dtype(self.size))
        found.values[torch.isin(found.values, self._reserved)] = UNK
        return found

    def decode(self, ids: Int[Tensor, " n"] | Sequence[int]) -> str:
        """The text of some ids. All that is no text is left out but `<unk>`."""
        numbers = torch.as_tensor(ids)
        return self._inner.decode(numbers[~torch.isin(numbers, self._reserved)].tolist(), skip_special_tokens=False)

    @property
    def identity(self) -> Identity:
        """What tells this vocabulary from another, the same for equal ones."""
        tokens = [self.token(i) for i in range(self.size)]
        return Identity(self.size, hashlib.sha256(json.dumps(tokens).encode()).hexdigest())

    def save(self, path: Path) -> None:
        """Write it whole, or not at all, as a file that the library `tokenizers` reads.

        Raises:
            OSError: it could not be written.
        """
        write(path, self.to_str())

    def to_str(self) -> str:
        """The text of `tokenizer.json`."""
        return self._inner.to_str(pretty=True)

    @classmethod
    def read(cls, path: Path | str) -> "Tokenizer":
        """The tokenizer in a file.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is no tokenizer's, or of one without `SPECIALS`.
        """
        file = Path(path).expanduser()
        if not file.is_file():
            raise FileNotFoundError(must_be("tokenizer", "an existing file, tokenizer.json", str(path)))
        try:
            inner = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
        # The library raises bare exceptions, and has no class for a file it cannot read.
        except Exception as error:
            raise ValueError(f"{path} must be a tokenizer.json of the library tokenizers: {error}") from None
        return cls(inner, str(path))

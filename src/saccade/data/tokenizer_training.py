"""Making a tokenizer: bytes, characters, words, or byte pairs learned from the texts to train on.

| kind | a token is | learned | unknown | gives a text back |
|---|---|---|---|---|
| `bytes` | a byte of its UTF-8 | nothing | nothing | as it was |
| `characters` | a character | which there are | rarer or new ones | as it was |
| `words` | what stands between white space; a line end | which there are | rarer or new ones | with single spaces |
| `bpe` | bytes that often stand together (Sennrich et al. 2016, on bytes) | merges | nothing | as it was |

`words` fits whatever is written with spaces between, phonemes too. Training reads the texts once and keeps counts of
words or characters, not the texts.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Inner

from saccade.data.tokenizer import SPECIALS, Tokenizer
from saccade.errors import must_be, unknown

Kind = Literal["bytes", "characters", "words", "bpe"]


@dataclass(frozen=True)
class TokenizerSettings:
    """How texts become ids.

    Attributes:
        kind: `"bytes"`, `"characters"`, `"words"` or `"bpe"`.
        size: at most so many tokens, the special ones counted; of characters, words and bpe. The commonest are kept.
        min_count: how often a character, a word or a pair of tokens must be seen to become a token.
        lowercase: whether texts are read in small letters.
        file: a tokenizer.json to use as it is, such as that of another run, instead of making one; the other options
            must then keep their defaults.

    Raises:
        ValueError: if the kind is unknown, the size leaves no room, or an option is set that is not read.
    """

    kind: Kind = "bpe"
    size: int = 8000
    min_count: int = 1
    lowercase: bool = False
    file: str | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no tokenizer."""
        if self.kind not in _KINDS:
            raise ValueError(unknown("kind", self.kind, _KINDS))
        _refuse_small(self, SPECIALS)
        if self.min_count < 1:
            raise ValueError(must_be("min_count", "at least 1", self.min_count))
        if self.file is not None:
            self._refuse_options_beside_a_file()

    def _refuse_options_beside_a_file(self) -> None:
        own, defaults = asdict(replace(self, file=None)), asdict(TokenizerSettings())
        if changed := [f"{name} = {value}" for name, value in defaults.items() if own[name] != value]:
            constraint = f"given with the tokenizer's other options as they are by default ({', '.join(changed)})"
            raise ValueError(must_be("file", constraint, self.file))


def make_tokenizer(
    settings: TokenizerSettings, texts: Iterable[str], tags: Sequence[str] = (), whole: bool = True
) -> Tokenizer:
    """The tokenizer that the settings describe, learned from texts where its kind learns.

    Args:
        settings: the kind and its limits, or a file to read.
        texts: what to learn from: the texts to train on and no others. Read once.
        tags: further tokens that no text yields, such as `"<2de>"`.
        whole: whether a text is one of its own: `bpe` then reads its first word like one within a text. Pieces of a
            longer text must be encoded as they stand.

    Raises:
        ValueError: if there is nothing in the texts; of a file, if it lacks the tags, and as `Tokenizer.read`.
        FileNotFoundError: if there is no such file.
    """
    if settings.file is not None:
        given = Tokenizer.read(settings.file)
        for tag in tags:
            given.tag(tag)
        return given
    _refuse_small(settings, (*SPECIALS, *tags))
    return Tokenizer(_KINDS[settings.kind](settings, texts, (*SPECIALS, *tags), whole))


def make_units(texts: Iterable[str], settings: TokenizerSettings) -> Tokenizer:
    """A tokenizer to which each text is one token, white space included: for words that somebody has cut already."""
    inner = Inner(models.WordLevel({}, unk_token="<unk>"))
    return Tokenizer(_counted(inner, settings, texts, SPECIALS))


def byte_tokens() -> list[str]:
    """The sign for each byte in order, as GPT-2 writes them: printable ones themselves, others from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]


_BYTES = byte_tokens()


def _bytes(settings: TokenizerSettings, texts: Iterable[str], specials: Sequence[str], whole: bool) -> Inner:
    vocabulary = {token: i for i, token in enumerate((*specials, *_BYTES))}
    inner = Inner(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return _finished(inner, settings, specials)


def _characters(settings: TokenizerSettings, texts: Iterable[str], specials: Sequence[str], whole: bool) -> Inner:
    inner = Inner(models.WordLevel({}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    return _counted(inner, settings, texts, specials)


def _words(settings: TokenizerSettings, texts: Iterable[str], specials: Sequence[str], whole: bool) -> Inner:
    inner = Inner(models.WordLevel({}, unk_token="<unk>"))
    line_ends = pre_tokenizers.Split("\n", "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([line_ends, pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed")])
    return _counted(inner, settings, texts, specials)


def _bpe(settings: TokenizerSettings, texts: Iterable[str], specials: Sequence[str], whole: bool) -> Inner:
    inner = Inner(models.BPE(unk_token="<unk>"))
    inner.normalizer = _normalizer(settings.lowercase, whole)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if whole:
        inner.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=settings.size,
        min_frequency=settings.min_count,
        special_tokens=list(specials),
        initial_alphabet=_BYTES,
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return inner


_KINDS: dict[str, Callable[[TokenizerSettings, Iterable[str], Sequence[str], bool], Inner]] = {
    "bytes": _bytes,
    "characters": _characters,
    "words": _words,
    "bpe": _bpe,
}


def _counted(inner: Inner, settings: TokenizerSettings, texts: Iterable[str], specials: Sequence[str]) -> Inner:
    """Fill the vocabulary with the commonest units of the texts, special tokens first."""
    inner.normalizer = _normalizer(settings.lowercase, whole=False)
    trainer = trainers.WordLevelTrainer(vocab_size=settings.size, min_frequency=settings.min_count, show_progress=False)
    inner.train_from_iterator(texts, trainer)
    units = sorted(inner.get_vocab().items(), key=lambda item: item[1])
    # What is spelled like a special token is no token of its own: wikitext's <unk> is the unknown word.
    kept = [unit for unit, _ in units if unit not in specials][: settings.size - len(specials)]
    if not kept:
        raise ValueError(must_be("texts", f"such that some unit comes {settings.min_count} times", "none"))
    inner.model = models.WordLevel({unit: i for i, unit in enumerate((*specials, *kept))}, unk_token="<unk>")
    return _finished(inner, settings, specials)


def _finished(inner: Inner, settings: TokenizerSettings, specials: Sequence[str]) -> Inner:
    inner.normalizer = _normalizer(settings.lowercase, whole=False)
    inner.add_special_tokens(list(specials))
    return inner


def _refuse_small(settings: TokenizerSettings, specials: Sequence[str]) -> None:
    """Refuse a size that leaves no room for what a text is made of; bytes have a size of their own."""
    least = len(specials) + (len(_BYTES) if settings.kind == "bpe" else 1)
    if settings.kind != "bytes" and settings.size < least:
        raise ValueError(must_be("size", f"at least {least} for {settings.kind}", settings.size))


def _normalizer(lowercase: bool, whole: bool) -> Any:
    """What is done to a text before it is cut; None for nothing."""
    steps = [normalizers.Lowercase()] if lowercase else []
    steps += [normalizers.Prepend(" ")] if whole else []
    return normalizers.Sequence(steps) if steps else None

"""Sentences with a tag at each word: CoNLL-U, and columns with a word and a tag.

- `.conllu`: ten columns (universaldependencies.org/format), read by the library `conllu`. Multiword tokens (`3-4`) and
  empty nodes (`8.1`) are passed over: their parts, or nothing, stand in the text.
- `.conll`, `.bio`, `.iob`, `.tsv`: columns with a tab between, the word first and the tag last, an empty line behind
  each sentence.

Files may be packed (.gz), and are read sentence by sentence.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saccade.data.lines import at, read_texts
from saccade.errors import must_be

Field = Literal["upos", "xpos"]
Block = tuple[int, list[str]]

_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")


@dataclass(frozen=True)
class Sentence:
    """Words and their tags.

    Attributes:
        words: at least one.
        tags: as many.
        where: the place, for messages: `"train.conll, line 12"`.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    where: str


def read_sentences(source: str, field: Field = "upos") -> Iterator[Sentence]:
    """The sentences of a file, by the ending of its name.

    Args:
        source: the file.
        field: of CoNLL-U: which column is the tag.

    Raises:
        ValueError: if the ending is none of `ENDINGS`, or the content is not as it promises, with the line.
        OSError: if the file cannot be read.
        ModuleNotFoundError: of CoNLL-U, if `conllu` is not installed.
    """
    ending = Path(source.lower().removesuffix(".gz")).suffix
    if ending not in ENDINGS:
        raise ValueError(must_be("tagged file", f"a name that ends in {', '.join(ENDINGS)} (or with .gz)", source))
    return ENDINGS[ending](Path(source).expanduser(), field)


def entity_faults(tags: tuple[str, ...]) -> list[int]:
    """Which tags go on with an entity (`I-person`) that the tag before is not part of, if tags are BIO at all."""
    if not all(tag == "O" or tag[:2] in ("B-", "I-") for tag in tags):
        return []
    before = ("O", *tags)
    return [i for i, tag in enumerate(tags) if tag[:2] == "I-" and before[i][2:] != tag[2:]]


def _blocks(path: Path) -> Iterator[Block]:
    """Lines between empty ones, with the number of the first."""
    block: list[str] = []
    number = 0
    for number, line in enumerate(read_texts(path), start=1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []
    if block:
        yield number + 1 - len(block), block


def _columns(path: Path, field: Field) -> Iterator[Sentence]:
    """A word and a tag a line, and as many columns in each line as in the first."""
    width = 0
    for begin, block in _blocks(path):
        rows = [line.split("\t") for line in block]
        for number, row in enumerate(rows, start=begin):
            width = width or max(2, len(row))
            if len(row) != width or not row[0].strip() or not row[-1].strip():
                constraint = f"{width} columns with a tab between, the word first and the tag last"
                raise ValueError(f"{at(path, number)}: {must_be('the line', constraint, block[number - begin])}")
        yield Sentence(tuple(row[0] for row in rows), tuple(row[-1] for row in rows), at(path, begin))


def _conllu(path: Path, field: Field) -> Iterator[Sentence]:
    """Numbered words, with comments, multiword tokens and empty nodes among them."""
    for begin, block in _blocks(path):
        rows = [(at(path, begin + i), line) for i, line in enumerate(block) if not line.startswith("#")]
        found = zip((where for where, _ in rows), _tokens(rows), strict=True)
        words = [(where, token) for where, token in found if isinstance(token["id"], int)]
        for i, (where, token) in enumerate(words, start=1):
            if token["id"] != i:
                raise ValueError(f"{where}: {must_be('the number of the word', str(i), token['id'])}")
            if token[field] in (None, "_"):
                raise ValueError(f"{where}: {must_be(field, 'a tag', '_')}")
        if words:
            forms, tags = (tuple(str(token[key]) for _, token in words) for key in ("form", field))
            yield Sentence(forms, tags, at(path, begin))


def _tokens(rows: list[tuple[str, str]]) -> list[dict[str, object]]:
    """The lines of a sentence, each with its place, read by the library that knows the format."""
    for where, line in rows:
        if (columns := line.count("\t") + 1) != len(_COLUMNS):
            raise ValueError(f"{where}: {must_be('the line', f'{len(_COLUMNS)} columns with a tab between', columns)}")
    try:
        return _parse([line for _, line in rows])
    except ValueError:
        # The library does not say which line it could not read.
        for where, line in rows:
            try:
                _parse([line])
            except ValueError as error:
                raise ValueError(f"{where}: the line must be CoNLL-U: {error}") from None
        raise


def _parse(lines: list[str]) -> list[dict[str, object]]:
    try:
        import conllu
        from conllu.exceptions import ParseException
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("CoNLL-U needs the library `conllu`: pip install 'saccade[train]'") from error
    try:
        return [dict(token) for part in conllu.parse("\n".join(lines), fields=_COLUMNS[:5]) for token in part]
    except ParseException as error:
        raise ValueError(str(error)) from None


ENDINGS: dict[str, Callable[[Path, Field], Iterator[Sentence]]] = {
    ".conllu": _conllu,
    ".conll": _columns,
    ".bio": _columns,
    ".iob": _columns,
    ".tsv": _columns,
}

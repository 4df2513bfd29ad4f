"""Data: every source hands over the same thing, texts as rows of numbers with a label each.

`SOURCES` is the list. A new source is one new file with a `load(settings)`, and one line here.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from saccade.data import generated, stdlib, text
from saccade.data.batching import Batch, batches, endless
from saccade.data.files import ENDINGS, is_file_name
from saccade.data.hub import PREFIX
from saccade.data.labelled import LabelledData, Split
from saccade.data.settings import DataSettings
from saccade.data.vocabulary import ByteVocabulary, SymbolVocabulary, Vocabulary, WordVocabulary, vocabulary_from_dict
from saccade.errors import unknown

__all__ = [
    "SOURCES",
    "Batch",
    "ByteVocabulary",
    "DataSettings",
    "LabelledData",
    "Source",
    "Split",
    "SymbolVocabulary",
    "Vocabulary",
    "WordVocabulary",
    "batches",
    "endless",
    "kind_of",
    "load",
    "vocabulary_from_dict",
]


@dataclass(frozen=True)
class Source:
    """A kind of data.

    Attributes:
        load: reads it.
        options: the settings that it reads, besides `source` and `seed`.
    """

    load: Callable[[DataSettings], LabelledData]
    options: tuple[str, ...]


_TEXT = ("length", "tokens", "words", "text_column", "label_column", "validation", "test")
_SIZES = ("train_size", "validation_size", "test_size")

SOURCES: dict[str, Source] = {
    "stdlib": Source(stdlib.load, ("length", "per_class")),
    "listops": Source(generated.load, (*_SIZES, "min_length", "max_length", "max_depth", "max_arguments")),
    "file": Source(text.load_files, _TEXT),
    "hub": Source(text.load_hub, _TEXT),
}


def load(settings: DataSettings) -> LabelledData:
    """The data that the settings name.

    Raises:
        ValueError: if the source is unknown, an option is set that it does not read, or its rows are not fit.
        OSError: if a file cannot be read or the hub cannot be reached.
        ModuleNotFoundError: if the source needs a library that is not installed.
    """
    source = SOURCES[kind_of(settings.source)]
    changed = [field.name for field in fields(settings) if getattr(settings, field.name) != field.default]
    for option in changed:
        if option not in {"source", "seed", *source.options}:
            raise ValueError(unknown(f"option of the source {settings.source!r}", option, source.options))
    return source.load(settings)


def kind_of(source: str) -> str:
    """Which entry of `SOURCES` reads this source.

    Raises:
        ValueError: if none does.
    """
    named = [name for name in SOURCES if name not in {"file", "hub"}]
    if source in named:
        return source
    if source.startswith(PREFIX):
        return "hub"
    # What looks like a path of another ending is refused where it is read, with the endings that are known.
    if is_file_name(source) or len(Path(source).parts) > 1 or Path(source).suffix or Path(source).exists():
        return "file"
    others = f"the path of a file that ends in {', '.join(ENDINGS)}, or hub:NAME"
    raise ValueError(f"{unknown('source', source, named)}; or else {others}")

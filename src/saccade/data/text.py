"""Texts with a label each, from the user's files or the hub: cut to a length in bytes, split if needed, and encoded.

The split is drawn by a hash of the (cut) text within each class: 80 % to train on, 10 % to validate and 10 % to
test, and never the same text on two sides. It does not depend on the order of the rows.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch

from saccade.data import files, hub
from saccade.data.labelled import LabelledData, Split
from saccade.data.rows import Columns, Row
from saccade.data.settings import DataSettings
from saccade.data.splitting import partition, rank
from saccade.data.vocabulary import ByteVocabulary, Vocabulary, WordVocabulary
from saccade.errors import must_be, unknown

HELD_OUT = 0.1

Parts = dict[str, list[Row]]


def load_files(settings: DataSettings) -> LabelledData:
    """The rows of `settings.source`, and of the files `validation` and `test` if they are given.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if a file holds something else than texts and labels; the message names file and line.
    """
    paths = {"train": settings.source, "validation": settings.validation, "test": settings.test}
    columns = Columns(settings.text_column, settings.label_column)
    parts = {part: files.read_rows(path, columns) for part, path in paths.items() if path is not None}
    return _labelled(parts, settings)


def load_hub(settings: DataSettings) -> LabelledData:
    """The splits of a data set of the hub.

    Raises:
        ModuleNotFoundError, ConnectionError, ValueError: as `hub.read_splits`, and if the rows make no task.
    """
    columns = Columns(settings.text_column, settings.label_column)
    return _labelled(hub.read_splits(settings.source, columns, settings.validation, settings.test), settings)


def divide(rows: Sequence[Row], held_out: Iterable[str], settings: DataSettings) -> Parts:
    """Keep most rows as "train", and hold out a tenth of every class, by content, for each other split.

    Raises:
        ValueError: if no class has enough different texts to reach every split.
    """
    shares = dict.fromkeys(held_out, HELD_OUT)
    shares = {"train": 1 - sum(shares.values()), **shares}
    # One label stands for a text that has two, the same in any order of the rows, so that it stays on one side.
    owner = {row.text[: settings.length]: row.label for row in sorted(rows, key=lambda row: row.label)}
    texts: dict[str, list[bytes]] = defaultdict(list)
    for text in sorted(owner, key=lambda text: rank(settings.seed, text)):
        texts[owner[text]].append(text)
    place: dict[bytes, str] = {}
    for of_class in texts.values():
        place.update(zip(of_class, partition([1] * len(of_class), shares), strict=True))
    parts: Parts = {name: [row for row in rows if place[row.text[: settings.length]] == name] for name in shares}
    if not all(parts.values()):
        most = max(map(len, texts.values()))
        constraint = f"at least {len(shares)} different texts of some class, to split them {len(shares)} ways"
        raise ValueError(must_be(settings.source, constraint, most))
    return parts


def _labelled(parts: Parts, settings: DataSettings) -> LabelledData:
    """Check the labels, split what was not split, and encode."""
    classes = tuple(sorted({row.label for row in parts["train"]}))
    if len(classes) < 2:
        raise ValueError(must_be(settings.source, "a source with at least 2 different labels", list(classes)))
    for row in (row for part in ("validation", "test") for row in parts.get(part, ())):
        if row.label not in classes:
            raise ValueError(f"{row.where}: {unknown('label', row.label, classes)}: it was never seen in training")
    long = sum(len(row.text) > settings.length for rows in parts.values() for row in rows)
    total = sum(map(len, parts.values()))
    held_out = [part for part in ("validation", "test") if part not in parts]
    if held_out:
        parts = parts | divide(parts["train"], held_out, settings)
    vocabulary = _vocabulary(parts["train"], settings)
    splits = {part: _as_split(rows, classes, settings.length, vocabulary) for part, rows in parts.items()}
    return LabelledData(
        name=settings.source,
        vocabulary=vocabulary,
        classes=classes,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        origin={"cut": f"{long:,} of {total:,} texts, to {settings.length:,} bytes"},
    )


def _vocabulary(rows: Sequence[Row], settings: DataSettings) -> Vocabulary:
    """What the tokens are; words are those of the texts to train on."""
    if settings.tokens == "bytes":
        return ByteVocabulary()
    return WordVocabulary.of((row.text[: settings.length] for row in rows), settings.words)


def _as_split(rows: Sequence[Row], classes: tuple[str, ...], length: int, vocabulary: Vocabulary) -> Split:
    index = {label: i for i, label in enumerate(classes)}
    sequences = tuple(vocabulary.encode(row.text[:length]) for row in rows)
    return Split(sequences, torch.tensor([index[row.label] for row in rows]))

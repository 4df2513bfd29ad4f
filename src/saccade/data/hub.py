"""Data sets of the Hugging Face hub, read by the `datasets` library: `hub:NAME` or `hub:NAME:CONFIG`.

NAME is anything that `datasets.load_dataset` takes, a folder on this machine too. What was loaded once is
found again without a network.
"""

from collections.abc import Mapping
from typing import Any

from saccade.data.rows import Columns, Row, read_row
from saccade.errors import must_be, unknown

PREFIX = "hub:"


def read_splits(source: str, columns: Columns, validation: str | None, test: str | None) -> dict[str, list[Row]]:
    """The rows of the splits "train", "validation" and "test", as far as there are such.

    Args:
        source: `hub:NAME` or `hub:NAME:CONFIG`.
        columns: the names of the text's and the label's column.
        validation: another name for the split to validate on; it must then be there.
        test: the same for the split to test on.

    Raises:
        ModuleNotFoundError: if `datasets` is not installed.
        ConnectionError: if the hub cannot be reached.
        ValueError: if the hub has no such data set, split or column, or a row is not fit.
    """
    dataset = _load(source)
    wanted = {"train": "train", "validation": validation, "test": test}
    splits = {}
    for part, name in wanted.items():
        if name is not None and name not in dataset:
            raise ValueError(f"{source}: {unknown(f'{part} split', name, map(str, dataset))}")
        if (name or part) in dataset:
            splits[part] = _read(dataset[name or part], columns, f"{source}, split {name or part}")
    return splits


def _load(source: str) -> Mapping[Any, Any]:
    """Ask `datasets`, and say what to do where it cannot help."""
    name, _, config = source.removeprefix(PREFIX).partition(":")
    if not name:
        raise ValueError(must_be("source", "hub:NAME or hub:NAME:CONFIG", source))
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{source} needs the library `datasets`: pip install 'saccade[train]'") from error
    try:
        return datasets.load_dataset(name, config or None)
    except ConnectionError as error:
        advice = "A data set that was loaded once is found again without a network; a file of your own needs none."
        raise ConnectionError(f"{source} must be a data set that can be reached: {error}. {advice}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{source} must be a data set that `datasets` can load: {error}") from error


def _read(rows: Any, columns: Columns, place: str) -> list[Row]:
    columns.check(rows.column_names, place)
    names = getattr(rows.features[columns.label], "names", None)
    pairs = zip(rows[columns.text], rows[columns.label], strict=True)
    return [
        read_row({columns.text: text, columns.label: _name(label, names, where)}, columns, where)
        for where, text, label in ((f"{place}, row {i}", *pair) for i, pair in enumerate(pairs))
    ]


def _name(label: object, names: list[str] | None, where: str) -> object:
    """The name of a numbered class; the hub writes -1 where the label is kept secret."""
    if names is None or not isinstance(label, int):
        return label
    if not 0 <= label < len(names):
        raise ValueError(f"{where}: {must_be('label', f'a class from 0 to {len(names) - 1}', label)}")
    return names[label]

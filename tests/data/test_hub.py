import json
import sys
from pathlib import Path

import pytest

from saccade.data import DataSettings, load

datasets = pytest.importorskip("datasets")


@pytest.fixture
def hub(monkeypatch) -> dict:
    """A hub without a network: what `load_dataset` finds, by name and configuration."""
    found: dict = {}

    def load_dataset(path, name=None):
        answer = found[path, name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return found


def table(rows: int, classes: list[str] | None = None, start: int = 0):
    columns = {"text": [f"text {i}" for i in range(start, start + rows)], "label": [i % 2 for i in range(rows)]}
    made = datasets.Dataset.from_dict(columns)
    return made.cast_column("label", datasets.ClassLabel(names=classes)) if classes else made


def texts(data, split) -> list[str]:
    return [data.vocabulary.decode(sequence) for sequence in split.sequences]


def test_the_splits_of_the_hub_are_used(hub):
    splits = {"train": table(7), "validation": table(3, start=10), "test": table(5, start=20)}
    hub["org/name", None] = datasets.DatasetDict(splits)
    data = load(DataSettings(source="hub:org/name"))
    assert texts(data, data.train) == [f"text {i}" for i in range(7)]
    assert texts(data, data.validation) == ["text 10", "text 11", "text 12"]
    assert len(data.test) == 5
    assert data.classes == ("0", "1")
    assert data.facts["data"] == "hub:org/name"


def test_numbered_classes_get_their_names(hub):
    hub["imdb", None] = datasets.DatasetDict(train=table(40, ["neg", "pos"]))
    data = load(DataSettings(source="hub:imdb"))
    assert data.classes == ("neg", "pos")
    for split in data.splits.values():
        for text, label in zip(texts(data, split), split.labels.tolist(), strict=True):
            assert int(text.split()[1]) % 2 == label


def test_a_configuration_and_other_splits_can_be_named(hub):
    splits = {"train": table(7), "dev_matched": table(3), "dev_other": table(5), "test": table(2)}
    hub["glue", "mnli"] = datasets.DatasetDict(splits)
    data = load(DataSettings(source="hub:glue:mnli", validation="dev_matched", test="dev_other"))
    assert [len(split) for split in data.splits.values()] == [7, 3, 5]


def test_a_missing_split_is_cut_from_the_training_examples(hub):
    hub["imdb", None] = datasets.DatasetDict(train=table(40), test=table(6), unsupervised=table(11))
    data = load(DataSettings(source="hub:imdb"))
    assert [len(split) for split in data.splits.values()] == [36, 4, 6]


def refused(message: str, kind: type[Exception] = ValueError, **options) -> None:
    with pytest.raises(kind) as error:
        load(DataSettings(**options))
    assert message in str(error.value)


def test_what_the_data_set_does_not_have_is_named(hub):
    hub["imdb", None] = datasets.DatasetDict(train=table(40), test=table(6))
    refused("hub:imdb: validation split must be one of test, train, got 'dev'", source="hub:imdb", validation="dev")
    refused(
        "hub:imdb, split train: text_column must be one of label, text, got 'texts' (did you mean 'text'?)",
        source="hub:imdb",
        text_column="texts",
    )
    hub["raw", None] = datasets.DatasetDict(test=table(6))
    refused("hub:raw: train split must be one of test, got 'train'", source="hub:raw")


def test_a_row_that_is_not_fit_is_named(hub):
    rows = datasets.Dataset.from_dict({"text": ["x", None], "label": [0, 1]})
    hub["holes", None] = datasets.DatasetDict(train=rows)
    refused("hub:holes, split train, row 1: text must be a string", source="hub:holes")


def test_secret_labels_are_named(hub):
    secret = table(3, ["neg", "pos"]).map(lambda row: {"label": -1})
    hub["glue", "sst2"] = datasets.DatasetDict(train=table(6, ["neg", "pos"]), test=secret)
    refused("hub:glue:sst2, split test, row 0: label must be a class from 0 to 1, got -1", source="hub:glue:sst2")


def test_without_a_network_the_error_says_what_to_do(hub):
    hub["imdb", None] = ConnectionError("Couldn't reach 'imdb' on the Hub")
    message = "hub:imdb must be a data set that can be reached: Couldn't reach 'imdb' on the Hub. A data set that was"
    refused(message, ConnectionError, source="hub:imdb")


@pytest.mark.parametrize("error", [FileNotFoundError("no such data set"), ValueError("BuilderConfig 'x' not found")])
def test_what_datasets_cannot_load_is_named(hub, error):
    hub["imdb", "x"] = error
    refused(f"hub:imdb:x must be a data set that `datasets` can load: {error}", source="hub:imdb:x")


def test_a_name_is_needed():
    refused("source must be hub:NAME or hub:NAME:CONFIG, got 'hub:'", source="hub:")


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused("pip install 'saccade[train]'", ModuleNotFoundError, source="hub:imdb")


def test_a_folder_on_this_machine_is_loaded_by_the_library_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "reviews"
    folder.mkdir()
    for name, rows in (("train", 20), ("test", 3)):
        lines = (json.dumps({"text": f"text {i}", "label": "ab"[i % 2]}) for i in range(rows))
        Path(folder / f"{name}.jsonl").write_text("\n".join(lines))
    data = load(DataSettings(source=f"hub:{folder}"))
    assert [len(split) for split in data.splits.values()] == [18, 2, 3]
    assert data.classes == ("a", "b")

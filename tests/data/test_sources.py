import dataclasses

import pytest

from saccade import data
from saccade.data import SOURCES, DataSettings, kind_of, load


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("stdlib", "stdlib"),
        ("listops", "listops"),
        ("hub:imdb", "hub"),
        ("hub:org/a.csv", "hub"),
        ("a.csv", "file"),
        ("a.jsonl.gz", "file"),
        ("folder/a", "file"),
        ("a.parquet", "file"),
    ],
)
def test_the_source_says_its_kind(source, kind):
    assert kind_of(source) == kind


def test_a_folder_of_the_same_name_does_not_hide_a_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "listops").mkdir()
    (tmp_path / "mine").mkdir()
    assert kind_of("listops") == "listops"
    assert kind_of("mine") == "file"


@pytest.mark.parametrize(("source", "near"), [("stdlb", "stdlib"), ("list-ops", "listops")])
def test_an_unknown_source_is_named_with_the_nearest_and_the_other_kinds(source, near):
    with pytest.raises(ValueError, match=f"did you mean '{near}'") as error:
        load(DataSettings(source=source))
    assert str(error.value) == (
        f"source must be one of listops, stdlib, got {source!r} (did you mean {near!r}?); "
        "or else the path of a file that ends in .jsonl, .json, .csv, .tsv, or hub:NAME"
    )


@pytest.mark.parametrize("source", ["file", "hub", "", "?"])
def test_the_names_of_kinds_are_no_sources(source):
    with pytest.raises(ValueError, match=r"must be"):
        load(DataSettings(source=source))


def test_an_unknown_ending_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"ends in \.jsonl, \.json, \.csv, \.tsv .*, got 'a\.parquet'"):
        load(DataSettings(source="a.parquet"))


@pytest.mark.parametrize(
    ("source", "option", "value"),
    [("listops", "length", 512), ("stdlib", "test", "a.csv"), ("a.csv", "per_class", 50), ("hub:x", "max_depth", 3)],
)
def test_an_option_that_the_source_does_not_read_is_refused(source, option, value):
    message = f"option of the source '{source}' must be one of .*, got '{option}'"
    with pytest.raises(ValueError, match=message):
        load(DataSettings(source=source, **{option: value}))


def test_every_option_is_read_by_some_source_and_explained():
    names = {field.name for field in dataclasses.fields(DataSettings)} - {"source", "seed"}
    assert names == {option for source in SOURCES.values() for option in source.options}
    for name in names | {"source", "seed"}:
        assert f"        {name}: " in DataSettings.__doc__


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"per_class": 9}, "per_class must be at least 10, got 9"),
        ({"train_size": 0}, "train_size must be at least 1, got 0"),
        ({"validation_size": 0}, "validation_size must be at least 1, got 0"),
        ({"test_size": -3}, "test_size must be at least 1, got -3"),
        ({"min_length": 3}, "min_length must be at least 4, got 3"),
        ({"min_length": 50, "max_length": 49}, "max_length must be at least min_length = 50, got 49"),
        ({"max_depth": 1}, "max_depth must be at least 2, got 1"),
        ({"max_arguments": 1}, "max_arguments must be at least 2, got 1"),
    ],
)
def test_numbers_that_make_no_data_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DataSettings(**options)


def test_the_public_names_are_sorted_and_there():
    assert sorted(data.__all__) == sorted(set(data.__all__))
    assert all(hasattr(data, name) for name in data.__all__)

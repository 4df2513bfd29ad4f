import json
from collections import Counter
from pathlib import Path

import pytest

from saccade.data import DataSettings, load


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, rows) -> str:
    Path(name).write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    return name


def texts(data, split) -> list[str]:
    return [data.vocabulary.decode(sequence) for sequence in split.sequences]


ROWS = [(f"text {i}", "abc"[min(i % 7, 2)]) for i in range(210)]


def test_a_file_alone_is_split_within_each_class():
    data = load(DataSettings(source=write("a.jsonl", ROWS)))
    assert data.classes == ("a", "b", "c")
    counts = [split.labels.bincount().tolist() for split in data.splits.values()]
    assert counts == [[24, 24, 120], [3, 3, 15], [3, 3, 15]]
    found = [(text, data.classes[label]) for split in data.splits.values() for text, label in examples(data, split)]
    assert sorted(found) == sorted(ROWS)


def examples(data, split):
    return zip(texts(data, split), split.labels.tolist(), strict=True)


def test_the_split_depends_on_the_content_and_the_seed_and_not_on_the_order():
    source = write("a.jsonl", ROWS)
    back = write("b.jsonl", ROWS[::-1])

    def test_texts(source, seed=0):
        data = load(DataSettings(source=source, seed=seed))
        return set(texts(data, data.test))

    assert test_texts(source) == test_texts(source) == test_texts(back)
    assert test_texts(source) != test_texts(source, seed=1)


def test_the_same_text_is_never_on_two_sides():
    # 40 texts five times each, some with two labels, and all alike only up to the cut.
    rows = [(f"text {i % 40:02}{'x' * i}", "ab"[(i % 40 + (i < 20)) % 2]) for i in range(200)]
    data = load(DataSettings(source=write("a.jsonl", rows), length=7))
    sides = [set(texts(data, split)) for split in data.splits.values()]
    back = load(DataSettings(source=write("b.jsonl", rows[::-1]), length=7))
    assert [set(texts(back, split)) for split in back.splits.values()] == sides
    assert [len(side) for side in sides] == [32, 4, 4]
    assert len(set.union(*sides)) == 40
    assert sum(map(len, data.splits.values())) == 200


@pytest.mark.parametrize("rows", [3, 4, 5])
def test_a_tiny_file_still_has_something_in_every_split(rows):
    data = load(DataSettings(source=write("a.jsonl", [(f"t{i}", "a") for i in range(rows)] + [("z", "b")])))
    assert [len(split) for split in data.splits.values()] == [rows - 1, 1, 1]


def test_a_file_too_small_to_split_is_an_error():
    rows = [("t0", "a"), ("t0", "a"), ("t0", "a"), ("t1", "a"), ("z", "b")]
    message = r"a\.jsonl must be at least 3 different texts of some class, to split them 3 ways, got 2"
    with pytest.raises(ValueError, match=message):
        load(DataSettings(source=write("a.jsonl", rows)))


def test_given_files_are_used_as_they_are():
    data = load(
        DataSettings(
            source=write("a.jsonl", ROWS[:13]),
            validation=write("b.jsonl", ROWS[13:24]),
            test=write("c.jsonl", [("same", "b"), ("same", "a")]),
        )
    )
    assert texts(data, data.train) == [text for text, _ in ROWS[:13]]
    assert texts(data, data.validation) == [text for text, _ in ROWS[13:24]]
    assert list(examples(data, data.test)) == [("same", 1), ("same", 0)]


@pytest.mark.parametrize(("given", "cut"), [("test", "validation"), ("validation", "test")])
def test_only_what_is_not_given_is_cut_from_the_training_file(given, cut):
    other = write("b.jsonl", ROWS[:2])
    data = load(DataSettings(source=write("a.jsonl", ROWS), **{given: other}))
    assert texts(data, data.splits[given]) == ["text 0", "text 1"]
    assert len(data.splits[cut]) == 21
    assert len(data.train) == 189


def test_texts_are_cut_by_bytes_and_the_facts_say_how_many():
    rows = [("né" * 5, "a"), ("x" * 7, "b"), ("x" * 8, "b")]
    source = write("a.jsonl", rows)
    data = load(DataSettings(source=source, validation=source, test=source, length=7))
    assert data.train.sequences[0].tolist() == list(("né" * 5).encode()[:7])
    assert data.longest == 7
    assert data.facts["cut"] == "6 of 9 texts, to 7 bytes"
    assert data.facts["data"] == "a.jsonl"


def test_one_class_is_no_task():
    message = r"a\.jsonl must be a source with at least 2 different labels, got \['a'\]"
    with pytest.raises(ValueError, match=message):
        load(DataSettings(source=write("a.jsonl", [("x", "a"), ("y", "a")])))


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_label_that_training_never_saw_is_named_with_its_line(part):
    other = write("b.jsonl", [("x", "pos"), ("y", "possitive")])
    source = write("a.jsonl", [(f"t{i}", ("neg", "pos", "positive")[i % 3]) for i in range(30)])
    message = (
        r"b\.jsonl, line 2: label must be one of neg, pos, positive, got 'possitive' \(did you mean 'positive'\?\): "
        "it was never seen in training"
    )
    with pytest.raises(ValueError, match=message):
        load(DataSettings(source=source, **{part: other}))


def test_whole_numbers_and_strings_are_the_same_labels():
    data = load(DataSettings(source=write("a.jsonl", [(f"t{i}", (1, "1", " 2 ", 2)[i % 4]) for i in range(40)])))
    assert data.classes == ("1", "2")
    assert Counter(label for split in data.splits.values() for label in split.labels.tolist()) == {0: 20, 1: 20}


def test_csv_and_other_column_names_go_all_the_way():
    Path("a.csv").write_text("body,stars\n" + "".join(f'"text, {i}",{i % 2}\n' for i in range(20)))
    data = load(DataSettings(source="a.csv", text_column="body", label_column="stars"))
    assert [len(split) for split in data.splits.values()] == [16, 2, 2]
    assert all(text.startswith("text, ") for text in texts(data, data.test))


def test_words_are_learned_from_what_is_trained_on():
    given = {"validation": write("v.jsonl", [("one two", "a")]), "test": write("t.jsonl", [("two three", "b")])}
    source = write("a.jsonl", [("one three three", "a"), ("three one", "b")])
    data = load(DataSettings(source=source, tokens="words", words=2, length=9, **given))
    assert data.vocabulary.words == ("one", "three")
    assert texts(data, data.train) == ["one three", "three one"]
    assert texts(data, data.validation) == ["one <unk>"]
    assert texts(data, data.test) == ["<unk> three"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": "letters"}, "tokens must be one of bytes, words, got 'letters'"),
        ({"words": 0}, "words must be at least 1, got 0"),
        ({"words": 40_000}, "words must be at most 32,765, got 40000"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_tokens_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        DataSettings(**options)

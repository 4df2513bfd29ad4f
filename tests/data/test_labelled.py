import pytest
import torch

from saccade.data.labelled import LabelledData, Split
from saccade.data.vocabulary import ByteVocabulary


def split_of(*labels: int, length: int = 2) -> Split:
    return Split(tuple(torch.zeros(length, dtype=torch.int16) for _ in labels), torch.tensor(labels))


DATA = LabelledData(
    name="pets",
    vocabulary=ByteVocabulary(),
    classes=("cat", "dog", "emu"),
    train=split_of(1, 1, 0, 2, 1),
    validation=split_of(0, 1),
    test=split_of(0, 0, 1, length=7),
    origin={"python": "3.11"},
)


def test_the_majority_share_is_that_of_the_commonest_class_of_train():
    assert DATA.majority_share(DATA.train) == pytest.approx(3 / 5)
    assert DATA.majority_share(DATA.test) == pytest.approx(1 / 3)


def test_the_facts_say_what_a_reader_of_results_must_know():
    assert DATA.facts == {
        "data": "pets",
        "python": "3.11",
        "examples": "train 5, validation 2, test 3",
        "classes": "dog 5, cat 4, emu 1",
        "majority share": "train 60.0%, validation 50.0%, test 33.3%",
    }


def test_of_many_classes_only_the_commonest_are_listed():
    names = tuple(f"c{i}" for i in range(23))
    many = LabelledData("many", ByteVocabulary(), names, split_of(*range(23), 22), split_of(22), split_of(22))
    assert many.facts["classes"].startswith("c22 4, c0 1, ")
    assert many.facts["classes"].endswith("c18 1 and 3 more")


def test_the_longest_example_may_be_in_any_split():
    assert DATA.longest == 7
    assert [len(split) for split in DATA.splits.values()] == [5, 2, 3]


def test_a_split_needs_one_label_a_sequence():
    with pytest.raises(ValueError, match="labels must be 2, one a sequence, got 3"):
        Split((torch.zeros(2, dtype=torch.int16),) * 2, torch.zeros(3, dtype=torch.int64))

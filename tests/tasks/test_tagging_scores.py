import sys

import pytest
import torch

from saccade.data.ragged import Ragged
from saccade.data.tokenizer import UNK
from saccade.tasks.tagging_scores import has_entities, score_entities, score_words
from saccade.training import half_width

RIGHT = [
    ["B-person", "I-person", "O", "B-place"],
    ["O", "B-place", "I-place", "I-place"],
    ["O", "O"],
]
FOUND = [
    ["B-person", "I-person", "O", "B-person"],  # one whole, one of the wrong kind
    ["O", "B-place", "I-place", "O"],  # one too short
    ["O", "I-place"],  # one that is none, and begins with I-
]


def test_entities_are_counted_by_hand():
    found = score_entities(FOUND, RIGHT)
    # Found are four, right is one; there are three.
    assert (found.precision, found.recall, found.entities) == (pytest.approx(1 / 4), pytest.approx(1 / 3), 3)
    assert found.f1 == pytest.approx(2 / 7)
    assert "conlleval" in found.entity_mode


def test_no_entity_found_is_a_score_of_zero():
    nothing = [["O"] * len(row) for row in RIGHT]
    assert score_entities(nothing, RIGHT).f1 == 0
    assert score_entities(RIGHT, RIGHT).f1 == 1
    assert score_entities(nothing, nothing).entities == 0


def test_two_entities_side_by_side_are_two():
    found = score_entities([["B-x", "I-x"]], [["B-x", "B-x"]])
    assert (found.precision, found.recall, found.entities) == (0, 0, 2)


def test_words_are_counted_by_hand():
    words = Ragged.of([[7, UNK, 8], [UNK, 7]])
    tags = Ragged.of([[0, 1, 2], [2, 1]])
    found = score_words(torch.tensor([0, 1, 1, 0, 1]), words, tags, torch.tensor([2] * 7 + [1, 2]))
    assert (found.accuracy, found.unknown_accuracy, found.unknown_words) == (pytest.approx(0.6), 0.5, 2)
    # Word 7 is guessed as 1, word 8 and unknown ones as 2.
    assert found.majority_accuracy == pytest.approx(3 / 5)
    assert (found.words, found.sentences, found.half_width) == (5, 2, half_width(0.6, 5))


def test_without_unknown_words_there_is_no_share_of_them():
    rows = Ragged.of([[7]])
    assert score_words(torch.tensor([0]), rows, Ragged.of([[0]]), torch.zeros(8).long()).unknown_accuracy is None


@pytest.mark.parametrize(
    ("tags", "are"),
    [(["B-x", "I-x", "O"], True), (["B-x"], True), (["O"], False), (["NOUN", "B-x"], False), (["O", "NOUN"], False)],
)
def test_which_tags_are_those_of_entities(tags, are):
    assert has_entities(tags) == are


def test_without_its_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "seqeval.metrics", None)
    with pytest.raises(ModuleNotFoundError, match=r"seqeval.*pip install 'saccade\[train\]'"):
        score_entities(FOUND, RIGHT)

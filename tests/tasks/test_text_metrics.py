"""Scores of texts: the libraries' own examples, the papers', and an edit distance that is written out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.tasks.text_metrics import METRICS, bleu, chrf, per, phonemes, sentence_bleu, ter, word_error

# The example in sacrebleu's guide.
DOG = ("The dog bit the man.", "It wasn't surprising.", "The man had just bitten him.")
REFERENCES = (
    ("The dog bit the man.", "The dog had bit the man."),
    ("It was not unexpected.", "No one was surprised."),
    ("The man bit him first.", "The man had bitten the dog."),
)
PHONES = st.lists(st.sampled_from(["AH0", "AH1", "K", "T", "OW2"]), max_size=4).map(" ".join)


def edits(one, other):
    """Levenshtein's distance by its definition."""
    if not one or not other:
        return len(one) + len(other)
    kept = edits(one[1:], other[1:]) + (one[0] != other[0])
    return min(kept, edits(one[1:], other) + 1, edits(one, other[1:]) + 1)


def test_bleu_and_chrf_are_those_of_the_librarys_guide():
    found = bleu(DOG, REFERENCES)
    assert found["bleu"] == pytest.approx(48.53, abs=0.005)
    assert found["bleu_signature"].startswith("nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    found = chrf(DOG, REFERENCES)
    assert found["chrf"] == pytest.approx(59.73, abs=0.005)
    assert found["chrf_signature"].startswith("nrefs:2|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


def test_texts_may_have_different_numbers_of_references():
    found = bleu(DOG, (REFERENCES[0][1:], *REFERENCES[1:]))
    assert found["bleu"] == pytest.approx(29.44, abs=0.005)
    assert found["bleu_signature"].startswith("nrefs:var|")


def test_ter_is_that_of_the_papers_example():
    """One shift, two substitutions and an insertion, of thirteen words."""
    text = "THIS WEEK THE SAUDIS denied information published in the new york times"
    reference = "SAUDI ARABIA denied THIS WEEK information published in the AMERICAN new york times"
    found = ter([text], [[reference]])
    assert found["ter"] == pytest.approx(100 * 4 / 13)
    assert found["ter_signature"].startswith("nrefs:1|case:lc|tok:tercom|")


def test_sentence_bleu_is_a_mean_over_texts():
    same, other = "a long sentence that is the same", "nothing of it"
    assert sentence_bleu([same], [[same]])["sentence_bleu"] == pytest.approx(100)
    assert sentence_bleu([same, other], [[same], [same]])["sentence_bleu"] == pytest.approx(50, abs=1)
    # Three words have no four in a row: they are not asked for.
    found = sentence_bleu(["the cat sat"], [["the cat sat"]])
    assert found["sentence_bleu"] == pytest.approx(100)
    assert "eff:yes" in found["sentence_bleu_signature"]


def test_phonemes_are_compared_without_stress():
    assert phonemes("K AH0 Z OW1") == ["K", "AH", "Z", "OW"]
    assert per(["K AH0 Z"], [["K AH2 Z"]]) == {"per": 0}
    assert word_error(["K AH0 Z"], [["K AH1 S", "K AH1 Z"]]) == {"word_error": 0}


def test_the_phoneme_error_takes_the_nearest_reference():
    # One edit of three phonemes; three of four, the first of two that are equally near.
    texts, references = ["K AH0 S", "T"], [["T OW1 T AH0", "K AH1 Z"], ["T AH0 K OW1", "AH0 T AH0 T"]]
    assert per(texts[:1], references[:1])["per"] == pytest.approx(1 / 3)
    assert per(texts, references)["per"] == pytest.approx((1 + 3) / (3 + 4))
    assert word_error(texts, references)["word_error"] == 1
    assert per([""], [["K AH0"]])["per"] == 1


@given(st.lists(st.tuples(PHONES, st.lists(PHONES.filter(bool), min_size=1, max_size=3)), min_size=1, max_size=3))
def test_the_phoneme_error_is_that_of_an_edit_distance_written_out(examples):
    total, length = 0, 0
    for text, references in examples:
        written = [phone.rstrip("012") for phone in text.split()]
        spoken = [[phone.rstrip("012") for phone in one.split()] for one in references]
        nearest = min(spoken, key=lambda one: edits(written, one))
        total, length = total + edits(written, nearest), length + len(nearest)
    texts, references = zip(*examples, strict=True)
    assert per(texts, references)["per"] == pytest.approx(total / length)
    wrong = sum(phonemes(text) not in [phonemes(one) for one in some] for text, some in examples)
    assert word_error(texts, references)["word_error"] == pytest.approx(wrong / len(examples))


def test_every_metric_is_in_the_list_under_the_name_of_its_score():
    for name, metric in METRICS.items():
        assert name in metric(DOG, REFERENCES)

import pytest

from saccade.attention import MECHANISMS, to_mechanism
from saccade.attention.patterns import Local
from saccade.bench.evidence.candidates import SIZES, candidates, label, pattern_of


def test_every_pattern_of_the_list_is_there_and_nothing_else():
    found = {spec.name for spec in candidates()}
    patterns = {name for name, spec in MECHANISMS.items() if pattern_of(spec()) is not None}
    assert found == patterns - {"full"}
    assert "linear" not in found
    assert found >= {"local", "strided", "longformer", "big_bird"}


def test_each_pattern_is_there_once_and_under_the_name_that_says_most():
    specs = candidates()
    assert len({pattern_of(spec) for spec in specs}) == len(specs)
    names = [label(spec) for spec in specs]
    assert "local(left=128)" in names
    assert "Local(128)" not in names


def test_sizes_are_of_the_mechanism_they_stand_under():
    for name, texts in SIZES.items():
        assert {to_mechanism(text).name for text in texts} == {name}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("local", "local(left=128)"),
        ("local(left=3, right=0)", "local(left=3, right=0)"),
        ("Local(3) | Global(1)", "Local(3) | Global(1)"),
        ("big_bird", "big_bird(block=64)"),
    ],
)
def test_a_label_says_the_size_and_is_read_back(text, shown):
    assert label(to_mechanism(text)) == shown
    assert to_mechanism(shown) == to_mechanism(text)


def test_the_pattern_is_that_of_the_layer():
    spec = to_mechanism("big_bird(block=2)")
    assert pattern_of(spec, 0) != pattern_of(spec, 1)
    assert pattern_of(spec, 1) == spec.build(4, 8, layer=1).pattern


def test_chosen_ones_stand_alone_and_must_be_patterns():
    assert [label(spec) for spec in candidates([Local(3), "local(left=5)"])] == ["Local(3)", "local(left=5)"]
    with pytest.raises(
        ValueError, match="mechanism must be a pattern, as only a pattern leaves pairs out, got 'linear'"
    ):
        candidates(["local", "linear"])
    with pytest.raises(ValueError, match="did you mean 'local'"):
        candidates(["locl"])

import pytest

from saccade.tasks.run import scored_split


def test_the_test_split_is_scored_and_another_source_whole() -> None:
    assert scored_split(None, None) == "test"
    assert scored_split(None, "validation") == "validation"
    assert scored_split("other.txt", None) == "all"


@pytest.mark.parametrize(("source", "split"), [("other.txt", "test"), (None, "tests")])
def test_a_split_of_a_whole_file_and_an_unknown_split_are_refused(source: str | None, split: str) -> None:
    with pytest.raises(ValueError, match="split"):
        scored_split(source, split)

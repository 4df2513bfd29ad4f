import pytest

from saccade.bench.pages.sections import SECTIONS, explained


class Whole:
    """What it does, in one sentence
    of two lines.

    Formula:
        a = b
          + c

    Cost: O(n) time,
        and O(1) memory. Note: more.

    Use it:
        Always.

    Leave it:
        Never.

    Source:
        "A Paper" (Somebody et al. 2020).

        A deviation.

    Attributes:
        size: how large,
            in tokens.
        kind: `a`: one; or `b`.
    """


def test_a_docstring_is_taken_apart():
    found = explained(Whole, attributes=("size",))
    assert found.summary == "What it does, in one sentence\nof two lines."
    assert tuple(found.sections) == SECTIONS
    assert found.sections["Formula"] == "a = b\n  + c"
    assert found.sections["Cost"] == "O(n) time,\nand O(1) memory. Note: more."
    assert found.sections["Source"] == '"A Paper" (Somebody et al. 2020).\n\nA deviation.'
    assert found.attributes == {"size": "how large, in tokens.", "kind": "`a`: one; or `b`."}


@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.parametrize("left", ["", "NAME:\n"], ids=["absent", "empty"])
def test_a_missing_section_is_named(name, left):
    class Short:
        pass

    before, _, after = (Whole.__doc__ or "").partition(f"    {name}:")
    later = [each for each in (*SECTIONS, "Attributes") if f"    {each}:" in after]
    rest = after[after.index(f"    {later[0]}:") :]
    Short.__doc__ = before + left.replace("NAME", f"    {name}") + rest
    with pytest.raises(ValueError, match=f"docstring of Short must be one with a section '{name}', got 'none'"):
        explained(Short)


def test_an_option_without_a_word_is_named():
    with pytest.raises(
        ValueError, match=r"docstring of Whole must be one that explains 'seed', got \['size', 'kind'\]"
    ):
        explained(Whole, attributes=("size", "seed"))


def test_a_class_without_a_docstring_lacks_everything():
    class Silent:
        pass

    with pytest.raises(ValueError, match="section 'Formula'"):
        explained(Silent)
    assert explained(Silent, wanted=()).summary == ""

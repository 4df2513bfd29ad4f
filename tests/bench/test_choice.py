import pytest

from saccade.attention import to_mechanism
from saccade.bench.choice import read_lengths, read_mechanisms, split_list


def test_the_baseline_comes_first_and_once():
    assert read_mechanisms("linear") == [to_mechanism("full"), to_mechanism("linear")]
    assert read_mechanisms("linear, full") == [to_mechanism("linear"), to_mechanism("full")]
    assert read_mechanisms(["linear"], baseline=False) == [to_mechanism("linear")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mechanisms must be at least one, and each only once"),
        ("local, local(left=128)", "each only once, got 'local, local'"),
        ("full, locl", "did you mean 'local'"),
    ],
)
def test_refuses_mechanisms(text, message):
    with pytest.raises(ValueError, match=message):
        read_mechanisms(text)


def test_commas_within_brackets_separate_nothing():
    text = "full,local(left=64, right=0), Global(2, positions=[3, 5]) | Local(1),,linear "
    assert split_list(text) == [
        "full",
        "local(left=64, right=0)",
        "Global(2, positions=[3, 5]) | Local(1)",
        "linear",
    ]


def test_lists_and_commas_mean_the_same():
    assert read_mechanisms(["full, local", "linear"]) == read_mechanisms("full, local, linear")


def test_lengths_are_read_in_order():
    assert read_lengths("4096, 512,1_024") == (512, 1024, 4096)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lengths must be whole numbers with commas between them, such as 512,1024, got ''"),
        ("512,1k", "whole numbers with commas between them, such as 512,1024, got '512,1k'"),
        ("-3", "whole numbers"),
        ("0,3", r"lengths must be at least one, each at least 1 and each only once, got \[0, 3\]"),
        ("8,8", "each only once"),
    ],
)
def test_refuses_lengths(text, message):
    with pytest.raises(ValueError, match=message):
        read_lengths(text)

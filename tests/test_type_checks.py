"""The run-time type checks of every test still refuse what is wrong, though less is made for them."""

import jaxtyping
import pytest
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor, zeros

import type_checks
from saccade.attention.dispatch import attend
from saccade.attention.patterns import Local


def doubler(letters):
    """A function that is defined inside another one, at every call of it."""

    @jaxtyped(typechecker=type_checks.kept)
    def double(x: Float[Tensor, letters]) -> Float[Tensor, letters]:
        return x + x if x.numel() else x[None]

    return double


def test_the_hook_is_at_work():
    with pytest.raises(TypeCheckError, match=r"'q'|'k'"):
        attend(zeros(2, 3, 5, 7), zeros(2, 3, 5, 8), zeros(2, 3, 5, 7), Local(1))


def test_arguments_and_results_are_checked_at_every_call_of_every_definition():
    for _ in range(2):
        double = doubler("a b")
        for _ in range(2):
            assert double(zeros(2, 3)).shape == (2, 3)
            with pytest.raises(TypeCheckError, match="parameters"):
                double(zeros(2))
            with pytest.raises(TypeCheckError, match="return value"):
                double(zeros(0, 3))


def test_functions_that_differ_in_an_annotation_alone_are_told_apart():
    pairs, threes = doubler("a b"), doubler("a b c")
    assert pairs(zeros(2, 3)).shape == (2, 3)
    assert threes(zeros(2, 3, 5)).shape == (2, 3, 5)
    with pytest.raises(TypeCheckError):
        threes(zeros(2, 3))


def test_a_check_is_made_once_and_not_before_it_is_needed(monkeypatch):
    made, beartype = [], type_checks.beartype
    monkeypatch.setattr(type_checks, "KEPT", {})
    monkeypatch.setattr(type_checks, "beartype", lambda function: made.append(function) or beartype(function))
    first, second = doubler("a b"), doubler("a b")
    assert not made
    for double in (first, second, first):
        double(zeros(2, 3))
    assert len(made) == 2, "one for the arguments, one for the result"


@pytest.mark.parametrize("off", [False, True])
def test_what_is_defined_inside_a_call_is_left_alone_where_the_checks_are_off(monkeypatch, off):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", off)

    def inner(x: Float[Tensor, "a b"]) -> None:
        """For a matrix."""

    decorated = type_checks.where_on(jaxtyped)(typechecker=type_checks.kept)(inner)
    assert (decorated is inner) == off
    outer = type_checks.where_on(jaxtyped)(typechecker=type_checks.kept)(doubler)
    assert outer is not doubler, "what stands in a module may be called later, where they are on"

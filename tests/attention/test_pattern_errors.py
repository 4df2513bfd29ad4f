"""What is no pattern is refused, by name: text, options, and what does not combine."""

import math

import pytest
import torch

from saccade.attention.patterns import (
    Axial,
    Full,
    Global,
    Grid,
    Local,
    PerHead,
    Random,
    Shifted,
    Strided,
    big_bird,
    longformer,
    parse,
    sparse_transformer,
)

TWO_HEADS = PerHead([Local(1), Full()])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Locul(3)", "did you mean 'Local'"),
        ("Local(3) | Globel(1)", "did you mean 'Global'"),
        ("Local(", "must be"),
        ("", "must be"),
        ("3", "must be"),
        ("Local(3) + Global(1)", "must be"),
        ("Local(3) | 4", "must be"),
        ("4 | Local(3)", "must be"),
        ("3 | 4", "must be"),
        ("Local(3)(4)", "must be"),
        ("Local.left", "must be"),
        ("Local(__import__('os'))", "__import__"),
        ("Local(-1)", "left must be a whole number"),
        ("Local(-Local(1))", "must be"),
        ("Local(size=3)", "size"),
        ("Local()", "left"),
        ("Local(1, **{})", "must be"),
        ("Local(left=1, left=2)", "must be"),
        ("Local('3')", "left must be"),
        ("Strided(0)", "stride must be"),
        ("(" * 300 + "Full" + ")" * 300, "must be"),
        ("Full\0", "must be"),
    ],
    ids=lambda text: text[:24],
)
def test_parse_refuses_what_is_no_pattern(unchecked, text, message):
    with pytest.raises((TypeError, ValueError), match=message):
        parse(text)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Local(-1), "left must be a whole number, at least 0, or inf, got -1"),
        (lambda: Local(3, -2), "right must be .*got -2"),
        (lambda: Local(1.5), "left must be .*got 1.5"),
        (lambda: Local(2.0), "left must be .*got 2.0"),
        (lambda: Local(True), "left must be .*got True"),
        (lambda: Local(-math.inf), "left must be .*got -inf"),
        (lambda: Local(math.nan), "left must be .*got nan"),
        (lambda: Local("3"), "left must be .*got '3'"),
        (lambda: Local(3, block=0), "block must be .*got 0"),
        (lambda: Local(3, block=True), "block must be .*got True"),
        (lambda: Local(3, block=2.0), "block must be .*got 2.0"),
        (lambda: Strided(0), "stride must be .*got 0"),
        (lambda: Strided(-3), "stride must be .*got -3"),
        (lambda: Strided(2.5), "stride must be .*got 2.5"),
        (lambda: Strided(True), "stride must be .*got True"),
        (lambda: Strided(3, steps=-1), "steps must be .*got -1"),
        (lambda: Strided(3, steps=1.0), "steps must be .*got 1.0"),
        (lambda: Global(-1), "first must be .*got -1"),
        (lambda: Global(1, last=-2), "last must be .*got -2"),
        (lambda: Global(1.0), "first must be .*got 1.0"),
        (lambda: Global(True), "first must be .*got True"),
        (lambda: Global(positions=(3, -1)), "positions must be"),
        (lambda: Global(positions=(1.5,)), "positions must be"),
        (lambda: Global(positions=("a",)), "positions must be"),
        (lambda: Global(positions=(3, "a")), "positions must be"),
        (lambda: Global(positions=4), "positions must be"),
        (lambda: Global(1, rows=False, columns=False), "rows or columns must be"),
        (lambda: Global(1, rows="no"), "rows must be True or False, got 'no'"),
        (lambda: Random(2, per_head=1), "per_head must be True or False, got 1"),
        (lambda: Random(2, causal="yes"), "causal must be True or False, got 'yes'"),
        (lambda: longformer(window=7), "window must be .*got 7"),
        (lambda: longformer(window=-2), "window must be .*got -2"),
        (lambda: longformer(window=4.0), "window must be .*got 4.0"),
        (lambda: big_bird(window_blocks=2), "window_blocks must be .*got 2"),
        (lambda: big_bird(window_blocks=0), "window_blocks must be .*got 0"),
        (lambda: big_bird(global_blocks=-1), "global_blocks must be .*got -1"),
        (lambda: big_bird(random_blocks=-1), "random_blocks must be .*got -1"),
        (lambda: big_bird(random_blocks=1.0), "random_blocks must be .*got 1.0"),
        (lambda: big_bird(block=0), "block must be .*got 0"),
        (lambda: big_bird(block=-4, random_blocks=0), "block must be .*got -4"),
        (lambda: sparse_transformer(0), "stride must be .*got 0"),
        (lambda: sparse_transformer(-1), "stride must be .*got -1"),
        (lambda: Full().dense(-1, 3), "n_q must be .*got -1"),
        (lambda: Full().dense(3, -1), "n_k must be .*got -1"),
        (lambda: Full().dense(3, 3, -2), "q_start must be .*got -2"),
    ],
    ids=lambda argument: argument[:40] if isinstance(argument, str) else "",
)
def test_bad_values_are_refused_by_name(unchecked, build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("other", [3, "Local(3)", None, torch.ones(2, 2, dtype=torch.bool)], ids=repr)
def test_only_patterns_combine(unchecked, other):
    with pytest.raises(TypeError, match="must be a pattern"):
        Local(3) | other
    with pytest.raises(TypeError, match="must be a pattern"):
        Local(3) & other


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Grid(0, 3, 1), "height must be a whole number, at least 1, got 0"),
        (lambda: Grid(3, 2.0, 1), "width must be a whole number, at least 1, got 2.0"),
        (lambda: Grid(3, 3, -1), "radius must be a whole number, at least 0, got -1"),
        (lambda: Axial(True, 3), "height must be .*got True"),
        (lambda: Axial(3, -2), "width must be .*got -2"),
        (lambda: Shifted(Local(1), -1), "n must be a whole number, at least 0, got -1"),
        (lambda: Local(1).shifted(1.0), "n must be .*got 1.0"),
        (lambda: Shifted("Local(1)", 1), "pattern must be a pattern, got 'Local\\(1\\)'"),
        (lambda: PerHead([]), "patterns must be at least one, got \\[\\]"),
        (lambda: PerHead(Local(1)), "patterns must be a list of patterns, one for each head, got Local\\(1\\)"),
        (lambda: PerHead([Local(1), "Full"]), "patterns must be a list of patterns"),
        (lambda: PerHead([TWO_HEADS, Full(), Full()]), "patterns must be made for 3 heads.*got PerHead"),
        (lambda: (TWO_HEADS | PerHead([Full()] * 3)).bind(5, 5), "heads of .* must be the same for all.*\\[2, 3\\]"),
        (lambda: TWO_HEADS.bind(5, 5, heads=4), "heads must be 2, one for each pattern of PerHead.*got 4"),
        (lambda: TWO_HEADS.shifted(1).dense(5, 5, heads=3), "heads must be 2.*got 3"),
        (lambda: Random(1, 4, excluding=TWO_HEADS).dense(5, 5, heads=3), "heads must be 2.*got 3"),
    ],
    ids=lambda argument: argument[:40] if isinstance(argument, str) else "",
)
def test_bad_options_of_compound_patterns_are_refused_by_name(unchecked, build, message):
    with pytest.raises((TypeError, ValueError), match=message):
        build()

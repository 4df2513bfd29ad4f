"""Patterns against the oracles' predicates, the laws of their algebra, and their text form."""

import copy
import math
import pickle
import subprocess
import sys

import pattern_cases
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pattern_cases import NAMED, Described

import oracles
from saccade.attention.patterns import (
    Axial,
    Causal,
    Full,
    Global,
    Grid,
    Local,
    Pattern,
    PerHead,
    Random,
    Strided,
    big_bird,
    longformer,
    parse,
    sparse_transformer,
)

TWO_HEADS = PerHead([Local(1), Full()])
WRITTEN = (
    TWO_HEADS,
    PerHead([Full(), Local(1)]),
    PerHead([TWO_HEADS, Strided(3) | Global(1, last=2)]) | Causal(),
    Grid(3, 5, 1),
    Grid(5, 3, 1),
    Axial(3, 5),
    Axial(5, 3),
    Axial(3, 5).shifted(2),
    (Local(1) | Global(1)).shifted(2) | Global(2),
    Local(1).shifted(2).shifted(1),
    Local(1).shifted(3),
    Random(1, 4, excluding=TWO_HEADS),
)
SIZES = ((1, 1, 0), (1, 7, 0), (1, 7, 6), (13, 5, 0), (5, 13, 8), (23, 23, 0), (17, 41, 11), (0, 3, 2), (3, 0, 0))
lengths = st.integers(0, 37)


def positions(n_q, n_k):
    """Index tensors for every pair, as a FlexAttention `mask_mod` gets them."""
    return (
        torch.zeros(1, 1, dtype=torch.long),
        torch.zeros(1, 1, dtype=torch.long),
        *torch.meshgrid(torch.arange(n_q), torch.arange(n_k), indexing="ij"),
    )


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize(("n_q", "n_k", "q_start"), SIZES, ids=lambda size: str(size))
def test_dense_is_the_predicate_for_every_pair(name, n_q, n_k, q_start):
    case = NAMED[name]
    mask = case.pattern.dense(n_q, n_k, q_start)
    assert mask.dtype == torch.bool
    assert torch.equal(mask, oracles.dense(case.sees, n_q, n_k, q_start))


@given(pattern_cases.patterns, lengths, lengths, lengths)
def test_dense_is_the_predicate_for_any_expression(case, n_q, n_k, q_start):
    assert torch.equal(case.pattern.dense(n_q, n_k, q_start), oracles.dense(case.sees, n_q, n_k, q_start))


@given(pattern_cases.patterns, lengths, lengths)
def test_causal_form_hides_later_keys_and_the_length(case, n_q, q_start):
    causal = case.pattern.causal()
    n_k = q_start + n_q
    assert torch.equal(causal.dense(n_q, n_k, q_start), oracles.dense(case.causal, n_q, n_k, q_start))
    longer = causal.dense(n_q + 5, n_k + 5, q_start)
    assert torch.equal(longer[:n_q, :n_k], causal.dense(n_q, n_k, q_start))
    assert not longer[:n_q, n_k:].any()


@given(pattern_cases.patterns, lengths, lengths, st.lists(st.integers(0, 37), min_size=2, max_size=3))
def test_live_lengths_take_the_place_of_the_length(case, n_q, n_k, live):
    live = tuple(min(length, n_k) for length in live)
    mask = case.pattern.bind(n_q, n_k, lengths=live).dense()
    mask = mask.expand(len(live), 1, n_q, n_k)
    for example, length in enumerate(live):
        expected = oracles.dense(case.sees, n_q, n_k, length=length)
        assert torch.equal(mask[example, 0], expected), f"length {length}"


@given(pattern_cases.patterns, lengths, lengths, st.integers(0, 20))
def test_allows_is_the_same_question_with_queries_counted_from_zero(case, n_q, n_k, q_start):
    bound = case.pattern.bind(n_q, n_k, q_start)
    assert torch.equal(bound.allows(*positions(n_q, n_k)), oracles.dense(case.sees, n_q, n_k, q_start))


@given(pattern_cases.patterns, pattern_cases.patterns, pattern_cases.patterns)
def test_union_and_intersection_are_commutative_associative_and_idempotent(a, b, c):
    a, b, c = a.pattern, b.pattern, c.pattern
    for left, right in (
        (a | b, b | a),
        (a & b, b & a),
        ((a | b) | c, a | (b | c)),
        ((a & b) & c, a & (b & c)),
        (a | a, a),
        (a & a, a),
        ((a | b) | a, a | b),
        ((a & b) & a, a & b),
    ):
        assert left == right
        assert hash(left) == hash(right)


@given(pattern_cases.patterns, pattern_cases.patterns, lengths, lengths)
def test_union_and_intersection_are_pointwise(a, b, n_q, n_k):
    mask_a, mask_b = a.pattern.dense(n_q, n_k), b.pattern.dense(n_q, n_k)
    assert torch.equal((a.pattern | b.pattern).dense(n_q, n_k), mask_a | mask_b)
    assert torch.equal((a.pattern & b.pattern).dense(n_q, n_k), mask_a & mask_b)


@given(pattern_cases.patterns, pattern_cases.patterns)
def test_equal_patterns_let_the_same_pairs_through(a, b):
    if a.pattern == b.pattern:
        assert torch.equal(oracles.dense(a.sees, 19, 23), oracles.dense(b.sees, 19, 23))


@given(pattern_cases.written)
def test_repr_is_an_expression_that_rebuilds_the_pattern(case):
    again = parse(repr(case.pattern))
    assert again == case.pattern
    assert repr(again) == repr(case.pattern)
    assert hash(again) == hash(case.pattern)


@pytest.mark.parametrize("name", NAMED)
def test_patterns_survive_copying(name):
    pattern = NAMED[name].pattern
    for again in (copy.deepcopy(pattern), pickle.loads(pickle.dumps(pattern))):
        assert again == pattern
        assert hash(again) == hash(pattern)


def test_causal_is_the_window_that_reaches_back_for_ever():
    assert Causal() == Local(math.inf, 0)
    assert hash(Causal()) == hash(Local(math.inf, 0))
    assert repr(Causal()) == "Causal()"


def test_a_window_is_symmetric_unless_told_otherwise():
    assert Local(3) == Local(3, 3)
    assert Local(3) != Local(3, 0)
    assert Local(3) != Local(3, block=2)


def test_different_patterns_are_not_equal():
    distinct = {case.pattern for case in NAMED.values()}
    assert len(distinct) == len(NAMED)
    assert (Local(1) | Local(2)) != (Local(1) & Local(2))
    assert Local(1) != "Local(1)"


def test_patterns_are_immutable():
    with pytest.raises(AttributeError):
        Local(3).left = 4
    with pytest.raises(AttributeError):
        (Local(3) | Global(1)).members = ()
    with pytest.raises(AttributeError):
        Global(2).first = 3


def test_listed_positions_come_in_any_order_and_any_number_of_times():
    assert Global(positions=(5, 3, 5)) == Global(positions=(3, 5))
    assert repr(Local(128) | Global(2)) == "Local(128) | Global(2)"


def test_no_listed_positions_are_no_positions():
    assert Global(2, positions=()) == Global(2)


@pytest.mark.parametrize("positions_given", [(), (9, 4)], ids=["none", "two"])
def test_longformer_is_a_window_and_symmetric_global_tokens(positions_given):
    pattern = longformer(window=6, first=1, positions=positions_given or None)
    expected = oracles.longformer(6, {0, *positions_given})
    assert torch.equal(pattern.dense(29, 29), oracles.dense(expected, 29, 29))


@pytest.mark.parametrize("blocks", [1, 2, 3, 7])
@pytest.mark.parametrize("window_blocks", [1, 3, 5])
def test_big_bird_without_random_blocks_is_the_papers_window_and_globals(blocks, window_blocks):
    pattern = big_bird(block=5, window_blocks=window_blocks, random_blocks=0)
    n = 5 * blocks
    expected = oracles.dense(oracles.big_bird_without_random(5, window_blocks), n, n)
    assert torch.equal(pattern.dense(n, n), expected)


@pytest.mark.parametrize("stride", [1, 2, 5, 30])
def test_sparse_transformer_is_the_recent_keys_and_every_stride_th(stride):
    pattern = sparse_transformer(stride)
    assert torch.equal(pattern.dense(23, 23), oracles.dense(oracles.sparse_transformer(stride), 23, 23))
    assert torch.equal(
        sparse_transformer(stride, causal=False).causal().dense(23, 23),
        oracles.dense(oracles.sparse_transformer(stride), 23, 23),
    )


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("Full", Full()),
        ("Causal()", Causal()),
        ("Local(inf, 0)", Causal()),
        ("Local(left=4, right=2, block=8)", Local(4, 2, block=8)),
        (" Local(128) | Global(2) ", Local(128) | Global(2)),
        ("Local(3) & (Strided(2) | Global(1))", Local(3) & (Strided(2) | Global(1))),
        ("Local(3) | Strided(2) & Global(1)", Local(3) | (Strided(2) & Global(1))),
        ("Global(positions=[5, 3])", Global(positions=(3, 5))),
        ("Global(0, rows=False, last=1)", Global(last=1, rows=False)),
        ("longformer(window=8)", longformer(window=8)),
        ("big_bird(block=4)", big_bird(block=4)),
        ("sparse_transformer(9)", sparse_transformer(9)),
    ],
)
def test_parse_reads_what_a_person_would_write(text, pattern):
    assert parse(text) == pattern


@given(pattern_cases.patterns, st.integers(0, 40), st.integers(0, 40), lengths, lengths, lengths)
def test_moving_twice_is_moving_by_the_sum(case, a, b, n_q, n_k, q_start):
    twice = case.pattern.shifted(a).shifted(b)
    assert torch.equal(twice.dense(n_q, n_k, q_start), case.pattern.shifted(a + b).dense(n_q, n_k, q_start))


@given(pattern_cases.patterns, pattern_cases.patterns, st.integers(0, 40), lengths, lengths)
def test_moving_and_combining_commute(p, q, by, n_q, n_k):
    p, q = p.pattern, q.pattern
    for whole, parts in (
        ((p | q).shifted(by), p.shifted(by) | q.shifted(by)),
        ((p & q).shifted(by), p.shifted(by) & q.shifted(by)),
    ):
        assert torch.equal(whole.dense(n_q, n_k), parts.dense(n_q, n_k))


@given(pattern_cases.patterns, st.integers(0, 40), lengths)
def test_moving_and_the_causal_form_commute(case, by, n):
    assert torch.equal(case.pattern.shifted(by).causal().dense(n, n), case.pattern.causal().shifted(by).dense(n, n))


@pytest.mark.parametrize("pattern", WRITTEN, ids=repr)
def test_compound_patterns_have_a_text_and_a_structure(pattern):
    again = parse(repr(pattern))
    assert again == pattern
    assert hash(again) == hash(pattern)
    assert repr(again) == repr(pattern)
    assert len({*WRITTEN, again}) == len(WRITTEN)
    with pytest.raises(AttributeError):
        setattr(pattern, next(iter(vars(pattern))), None)


def test_pattern_itself_cannot_be_built():
    with pytest.raises(TypeError):
        Pattern()


def test_the_cases_differ_where_it_matters():
    """Guards the tests above: every named case must hide and show something somewhere."""
    for name, case in NAMED.items():
        assert isinstance(case, Described)
        mask = oracles.dense(case.sees, 101, 101)
        assert mask.any() or name == "nothing", name
        assert not mask.all() or name == "full", name


def test_a_bound_pattern_is_a_mask_mod_of_flex_attention():
    """Torch counts the arguments of the function itself: no bound method, and not what the type checks make of it."""
    program = """
import torch
from torch.nn.attention.flex_attention import create_block_mask, create_mask
from saccade import Global, Local, Strided, big_bird
for pattern in (Local(7), big_bird(block=16), Strided(5) | Global(2)):
    allows = pattern.bind(200, 200).allows
    assert torch.equal(create_mask(allows, 1, 1, 200, 200, device="cpu")[0, 0], pattern.dense(200, 200))
    assert create_block_mask(allows, 1, 1, 200, 200, device="cpu").shape == (1, 1, 200, 200)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr

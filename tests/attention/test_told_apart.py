"""Patterns that differ between heads and examples: masks, layouts and `attend`, each head and example by itself."""

import pattern_cases
import pytest
import torch
from attend_cases import BACKENDS, allowed, assert_same, live_lengths, random_inputs, with_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from pattern_cases import EXAMPLES, HEADS
from test_layout import check_layout

import oracles
from saccade.attention.dispatch import attend
from saccade.attention.layout import layout, pair_layout
from saccade.attention.patterns import Causal, Global, Local, PerHead, Random, Strided

CASES = {**HEADS, **EXAMPLES}
POSITIONS = ((72, 72, 0), (30, 65, 3))
MASKS = {"none": None, "holes": (70, 33)}


def real_keys(kind, n_k):
    """Which keys are real: up to each example's length, with holes before it."""
    if MASKS[kind] is None:
        return None
    mask = torch.arange(n_k)[None] < torch.tensor(MASKS[kind])[:, None].clamp(max=n_k)
    mask[:, 1:20:3] = False
    return mask


def as_lead(mask, examples, heads):
    return mask.expand(*(1,) * (4 - mask.ndim), *mask.shape).expand(examples, heads, -1, -1)


def compared(case, n_q, n_k, q_start, groups, mask, backends=(*BACKENDS, "auto")):
    """`attend` against the oracle, under the mask that the predicates describe."""
    heads = len(case.sees[0])
    live = live_lengths(mask)
    seen = case.dense(n_q, n_k, q_start, live if case.pattern.needs_length else None)
    seen = seen if mask is None else seen & mask[:, None, None]
    q, k, v, upstream = random_inputs(n_q, n_k, heads, groups)
    wanted = with_gradients(lambda *qkv: oracles.attention(*qkv, seen), q, k, v, upstream=upstream)
    for backend in backends:
        actual = with_gradients(
            lambda *qkv, backend=backend: attend(*qkv, case.pattern, key_mask=mask, q_start=q_start, backend=backend),
            *(q, k, v),
            upstream=upstream,
        )
        assert_same(actual, wanted)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("n_q", "n_k", "q_start"), POSITIONS, ids=str)
def test_masks_and_layouts_are_those_of_each_head_and_example(name, n_q, n_k, q_start):
    case = CASES[name]
    bound = case.pattern.bind(n_q, n_k, q_start, heads=4)
    wanted = case.dense(n_q, n_k, q_start)
    assert torch.equal(as_lead(bound.dense(), len(wanted), 4), wanted)
    for plan in (layout(bound), layout(bound, 16), pair_layout(bound)):
        check_layout(plan, bound)


@pytest.mark.parametrize("name", ["orders_in_some", "edges_in_one", "globals_in_some", "with_last"])
def test_masks_and_layouts_of_ragged_batches(name):
    case, live = CASES[name], (70, 41)
    bound = case.pattern.bind(70, 70, heads=4, lengths=live)
    wanted = case.dense(70, 70, live=live)
    assert torch.equal(as_lead(bound.dense(), 2, 4), wanted)
    for plan in (layout(bound), layout(bound, 16), pair_layout(bound)):
        check_layout(plan, bound)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mask", MASKS)
def test_attend_equals_the_oracle(name, mask):
    compared(CASES[name], 70, 70, 0, 2, real_keys(mask, 70))


@pytest.mark.parametrize("name", CASES)
def test_later_queries_with_keys_of_one_head_equal_the_oracle(name):
    compared(CASES[name], 25, 71, 46, 1, real_keys("holes", 71), BACKENDS)


@pytest.mark.parametrize("name", CASES)
def test_the_causal_form_hides_later_keys_in_every_head(name):
    pattern = CASES[name].pattern.causal()
    whole = as_lead(pattern.dense(60, 60, heads=4), 2, 4)
    prefix = as_lead(CASES[name].pattern.prefix_form().dense(60, 60, heads=4), 2, 4)
    assert torch.equal(whole, prefix.tril())
    q, k, v, upstream = random_inputs(60, 60, 4, 2)
    wanted = with_gradients(lambda *qkv: oracles.attention(*qkv, whole), q, k, v, upstream=upstream)
    for backend in BACKENDS:
        actual = with_gradients(
            lambda *qkv, backend=backend: attend(*qkv, pattern, backend=backend), q, k, v, upstream=upstream
        )
        assert_same(actual, wanted)


@settings(max_examples=25)
@given(pattern_cases.heads, st.integers(1, 60), st.integers(1, 60), st.integers(0, 40), st.sampled_from([None, 16, 32]))
def test_any_list_of_patterns_has_an_exact_layout(case, n_q, n_k, q_start, size):
    bound = case.pattern.bind(n_q, n_k, q_start)
    heads = len(case.sees[0])
    assert torch.equal(as_lead(bound.dense(), 1, heads), case.dense(n_q, n_k, q_start))
    check_layout(layout(bound, size), bound)
    check_layout(pair_layout(bound), bound)


@settings(max_examples=20)
@given(
    pattern_cases.heads, st.integers(1, 40), st.integers(1, 40), st.integers(0, 40), st.sampled_from(["none", "holes"])
)
def test_any_list_of_patterns_equals_the_oracle(case, n_q, n_k, q_start, mask):
    compared(case, n_q, n_k, q_start, 1, real_keys(mask, n_k), BACKENDS)


@pytest.mark.parametrize("mask", MASKS)
def test_draws_of_each_head_beside_other_patterns(mask):
    """Here the dense mask is the judge, as nothing but the package knows the draws."""
    drawn = Random(2, block=8, per_head=True)
    pattern = PerHead([drawn, drawn, Strided(7), drawn | Global(last=2)]) | Strided(9) & Causal()
    key_mask = real_keys(mask, 70)
    seen = allowed(pattern, 70, 70, 0, 4, key_mask)
    if mask == "none":
        assert not torch.equal(seen[:, 0], seen[:, 1])
    q, k, v, upstream = random_inputs(70, 70, 4, 2)
    wanted = with_gradients(lambda *qkv: oracles.attention(*qkv, seen), q, k, v, upstream=upstream)
    for backend in BACKENDS:
        actual = with_gradients(
            lambda *qkv, backend=backend: attend(*qkv, pattern, key_mask=key_mask, backend=backend),
            *(q, k, v),
            upstream=upstream,
        )
        assert_same(actual, wanted)


@pytest.mark.parametrize(
    "pattern",
    [
        Global(2) & PerHead([Local(3), Local(300)]),
        (Global(2) & Causal()) | PerHead([Local(3), Local(50)]),
        Global(16) & Random(3, block=16, per_head=True),
        (Local(9) | Global(16)) & Random(3, block=16, per_head=True),
    ],
    ids=repr,
)
@pytest.mark.parametrize("backend", ["blockwise", "pairs"])
def test_global_rows_may_differ_between_heads(pattern, backend):
    """Rows that are dense in every head, and yet see different keys in each."""
    q, k, v = (torch.randn(2, 2, 130, 4, dtype=torch.float64) for _ in range(3))
    wanted = attend(q, k, v, pattern, backend="reference")
    torch.testing.assert_close(attend(q, k, v, pattern, backend=backend), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("pattern", "n", "q_start"),
    [(Global(3).shifted(64) | Local(3), 7, 5), (Global(2, columns=False).shifted(64) | Global(5, rows=False), 63, 0)],
    ids=repr,
)
def test_global_tokens_wholly_behind_the_input_are_nobody(pattern, n, q_start):
    q, k, v = (torch.randn(1, 2, n, 4, dtype=torch.float64) for _ in range(3))
    wanted = attend(q, k, v, pattern, q_start=q_start, backend="reference")
    found = attend(q, k, v, pattern, q_start=q_start, backend="blockwise")
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)

"""A layout must cover the allowed pairs, each once and nothing else, and stay small."""

import pattern_cases
import pytest
import torch
from allocations import LargestAllocation
from hypothesis import given
from hypothesis import strategies as st
from pattern_cases import NAMED

import oracles
from saccade.attention.layout import layout, pair_layout
from saccade.attention.patterns import Causal, Full, Global, Local, Random, Strided, big_bird

lengths = st.integers(0, 150)


def covered(part, scope):
    """How often each pair is visited and let through, Int[b h q k], read off one part alone."""
    size, examples, heads = part.size, scope.examples, scope.heads
    visited_tiles = {
        (int(b), int(h), int(q))
        for group in part.groups
        for b, h, q in zip(group.example, group.head, group.query, strict=True)
    }
    assert part.covers == (len(visited_tiles) == part.examples * part.heads * part.query_tiles)
    begin = part.first_tile * size + part.front
    end_q, end_k = (-(-end // size) * size + size for end in (begin + scope.n_q, scope.n_k))
    tiles = torch.zeros(part.examples, part.heads, end_q // size, end_k // size, size, size, dtype=torch.int32)
    for group in part.groups:
        b, h = (
            place[:, None] if many > 1 else torch.zeros_like(place[:, None])
            for place, many in ((group.example, part.examples), (group.head, part.heads))
        )
        masks = group.masks.expand(len(group.query), -1)
        tiles.index_put_((b, h, group.query[:, None], group.keys), part.table[masks].int(), accumulate=True)
    tiles = tiles.expand(examples, heads, *tiles.shape[2:])
    count = tiles.transpose(3, 4).reshape(examples, heads, end_q, end_k)
    assert not count[:, :, :begin].any()
    assert not count[:, :, begin + scope.n_q :].any()
    assert not count[..., scope.n_k :].any()
    count = count[:, :, begin : begin + scope.n_q, : scope.n_k].clone()
    for b, h in torch.cartesian_prod(torch.arange(examples), torch.arange(heads)).tolist():
        row_b, row_h = min(b, part.examples - 1), min(h, part.heads - 1)
        for place, query in enumerate(part.rows[row_b, row_h].tolist()):
            if part.row_mask is None:
                assert query >= 0
                count[b, h, query] += 1
            elif query >= 0:
                count[b, h, query] += part.row_mask[row_b, row_h, place]
            else:
                assert not part.row_mask[row_b, row_h, place].any()
    return reordered(count, part)


def reordered(count, part):
    """From places to queries and keys."""
    for axis, places in ((2, part.queries), (3, part.keys)):
        if places is not None:
            inverse = places.expand(*count.shape[:2], -1).argsort(-1)
            index = inverse[..., None] if axis == 2 else inverse[:, :, None]
            count = count.gather(axis, index.expand_as(count))
    return count


def assert_exact(bound, size=None):
    plan = layout(bound, size)
    check_layout(plan, bound)
    if size is None:
        check_layout(pair_layout(bound), bound)
    return plan


def check_layout(plan, bound):
    scope, dense = bound.scope, bound.dense()
    count = sum(covered(part, scope) for part in plan.parts)
    expected = dense.expand(*(1,) * (4 - dense.ndim), *dense.shape).expand_as(count)
    assert torch.equal(count, expected.int())
    assert plan.pairs == count.sum()
    for part in plan.parts:
        assert part.table[0].all(), "mask number 0 lets everything through"
        if part.size > 1:  # lists of pairs are filled up with masked repetitions
            ascending = [bool((group.keys.diff(dim=1) > 0).all()) for group in part.groups]
            assert all(ascending), "a key tile listed twice would be counted twice"


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize(
    ("n_q", "n_k", "q_start"),
    [(1, 1, 0), (63, 63, 0), (64, 64, 0), (65, 130, 65), (17, 101, 84), (130, 70, 3), (0, 5, 0), (5, 0, 0)],
    ids=str,
)
def test_layout_covers_the_allowed_pairs_once_and_nothing_else(name, n_q, n_k, q_start):
    pattern = NAMED[name].pattern
    assert_exact(pattern.bind(n_q, n_k, q_start))
    assert_exact(pattern.bind(n_q, n_k, q_start), 16)


@given(pattern_cases.patterns, lengths, lengths, st.integers(0, 90), st.sampled_from([None, 4, 16, 32]))
def test_layout_is_exact_for_any_expression(case, n_q, n_k, q_start, size):
    plan = assert_exact(case.pattern.bind(n_q, n_k, q_start), size)
    assert plan.pairs == oracles.dense(case.sees, n_q, n_k, q_start).sum()
    assert plan.visited >= plan.pairs


@given(pattern_cases.patterns, lengths, st.lists(st.integers(0, 150), min_size=2, max_size=3), st.integers(0, 70))
def test_layout_is_exact_for_every_example_of_a_ragged_batch(case, n, live, q_start):
    live = tuple(min(length, n) for length in live)
    assert_exact(case.pattern.bind(n - min(q_start, n), n, min(q_start, n), lengths=live), 16)


RANDOM = {
    "random": Random(2, block=16),
    "odd_block": Random(3, block=7, seed=3),
    "small_block": Random(5, block=3),
    "earlier": Random(2, block=16, causal=True),
    "excluding": Random(2, block=16, excluding=Local(1, block=16) | Global(5)),
    "heads": Random(2, block=16, per_head=True),
    "big_bird": big_bird(block=16),
    "big_bird_heads": big_bird(block=8, per_head=True, seed=5),
    "big_bird_causal": big_bird(block=16).causal(),
    "with_strides": Random(1, block=5, per_head=True) | Strided(9) & Causal(),
    "cut": Random(2, block=11) & Local(40, 20),
}


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("size", [None, 8, 16, 24])
@pytest.mark.parametrize(("n_q", "n_k", "q_start"), [(149, 149, 0), (33, 97, 64), (50, 93, 43)], ids=str)
def test_layout_is_exact_for_random_blocks(name, size, n_q, n_k, q_start):
    assert_exact(RANDOM[name].bind(n_q, n_k, q_start, heads=3), size)


@pytest.mark.parametrize("name", RANDOM)
def test_layout_is_exact_for_random_blocks_of_a_ragged_batch(name):
    assert_exact(RANDOM[name].bind(131, 131, lengths=(131, 67, 16, 0), heads=2))


def sizes(plan):
    (part,) = plan.parts
    tensors = [part.table, part.rows, *([] if part.row_mask is None else [part.row_mask])]
    for group in part.groups:
        tensors += [group.example, group.head, group.query, group.keys, group.masks]
    return sum(tensor.numel() for tensor in tensors)


@pytest.mark.parametrize(
    ("pattern", "keys_each"),
    [
        (Local(128), 257),
        (Local(1, block=64) | Global(4, rows=False), 200),
        (Local(64, 0) | Global(2) & Causal(), 70),
    ],
    ids=repr,
)
def test_a_million_positions_need_no_large_array(pattern, keys_each):
    n = 1_000_000
    with LargestAllocation() as largest:
        plan = layout(pattern.bind(n, n))
    size = plan.parts[0].size
    listed = n / size * (keys_each / size + 4)
    assert sizes(plan) < 4 * listed + 100 * size**2 + 3 * n
    assert largest.bytes < 32 * 1024**2, "one tile list is a few MB, one n x n array of bits 125,000"
    assert plan.pairs <= plan.visited < n * (keys_each + 4 * size)


def test_visited_pairs_follow_the_window_and_not_the_length():
    plans = [layout(Local(32, 0).bind(n, n)) for n in (2048, 4096, 8192)]
    visited = [plan.visited / n for plan, n in zip(plans, (2048, 4096, 8192), strict=True)]
    assert max(visited) < 1.05 * min(visited)
    assert max(visited) <= 33 + 2 * plans[0].parts[0].size


def test_global_rows_do_not_make_every_tile_list_long():
    n = 4096
    plan = layout((Local(16) | Global(3)).bind(n, n))
    assert plan.visited < n * 6 * plan.parts[0].size + 4 * n


@pytest.mark.parametrize("pattern", [Full(), Causal(), Local(5) & Local(0, 3), big_bird()], ids=repr)
def test_the_same_pattern_and_lengths_give_the_same_layout_object(pattern):
    assert layout(pattern.bind(200, 200)) is layout(pattern.bind(200, 200))
    assert layout(pattern.bind(200, 200)) is not layout(pattern.bind(199, 200))


def test_pairs_that_nobody_sees_are_not_visited():
    apart = Local(3, 0) & Local(0, 3) & Strided(2)
    plan = layout(apart.bind(640, 640))
    assert plan.pairs == 640
    empty = Global(positions=(1000,), rows=False)
    assert layout(empty.bind(640, 640)).visited == 0

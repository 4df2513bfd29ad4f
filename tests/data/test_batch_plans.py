from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.data.batch_plans import WIDTH, by_examples, by_tokens, endless
from saccade.data.batching import order

LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=80)


def lists(plan) -> list[list[int]]:
    return [rows.tolist() for rows in plan]


@given(LENGTHS, st.integers(60, 400), st.integers(0, 3), st.booleans())
def test_a_batch_has_at_most_so_many_tokens_and_every_example_comes_once(lengths, batch_tokens, epoch, shuffle):
    plan = by_tokens(torch.tensor(lengths), batch_tokens, seed=5, epoch=epoch, shuffle=shuffle)
    assert sorted(row for rows in lists(plan) for row in rows) == list(range(len(lengths)))
    assert all(len(rows) * max(lengths[row] for row in rows.tolist()) > 0 or True for rows in plan)
    assert all(len(rows) * max(lengths[row] for row in rows.tolist()) <= batch_tokens for rows in plan)
    assert len(plan) == len(by_tokens(torch.tensor(lengths), batch_tokens, seed=5, epoch=epoch + 1, shuffle=shuffle))


def test_batches_are_nearly_full_and_hardly_padded():
    lengths = torch.randint(3, 60, (3000,))
    plan = by_tokens(lengths, 1000, seed=1)
    padded = sum(len(rows) * int(lengths[rows].max()) for rows in plan)
    assert int(lengths.sum()) / padded > 1 / WIDTH
    sizes = torch.tensor([len(rows) * int(lengths[rows].max()) for rows in plan])
    assert (sizes < 800).sum() <= 1 + len(plan) / 20


def test_the_shortest_come_first_where_nothing_is_drawn():
    lengths = torch.tensor([5, 2, 9, 2, 5, 1])
    plan = lists(by_tokens(lengths, 12, shuffle=False))
    assert [row for rows in plan for row in rows] == [5, 1, 3, 0, 4, 2]


def test_epochs_differ_in_what_comes_together_and_in_which_order():
    lengths = torch.randint(3, 60, (400,))
    first, second, again = (by_tokens(lengths, 500, seed=2, epoch=epoch) for epoch in (0, 1, 0))
    assert lists(first) == lists(again) != lists(second)
    assert {tuple(sorted(rows)) for rows in lists(first)} != {tuple(sorted(rows)) for rows in lists(second)}
    longest = [int(lengths[rows].max()) for rows in first]
    assert longest != sorted(longest)
    assert lists(first) != lists(by_tokens(lengths, 500, seed=3))


def test_batches_by_examples_are_in_the_order_of_old():
    assert lists(by_examples(11, 4, seed=3, epoch=5)) == [[8, 4, 5, 7], [9, 2, 0, 6], [10, 1, 3]]
    assert order(11, 3, 5) == [8, 4, 5, 7, 9, 2, 0, 6, 10, 1, 3]
    assert lists(by_examples(5, 2, shuffle=False)) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("start", [0, 1, 5, 14, 40])
def test_an_endless_plan_goes_on_with_the_same_batches(start):
    lengths = torch.randint(3, 60, (100,))

    def plan(epoch):
        return by_tokens(lengths, 300, seed=4, epoch=epoch)

    whole = [rows for epoch in range(6) for rows in lists(plan(epoch))]
    assert lists(islice(endless(plan, start), 20)) == whole[start : start + 20]


def test_what_makes_no_batches_is_refused():
    with pytest.raises(ValueError, match="batch_tokens must be at least 9, the length of example 2, got 8"):
        by_tokens(torch.tensor([1, 2, 9]), 8)
    with pytest.raises(ValueError, match="examples must be a whole number, at least 1, got 0"):
        by_tokens(torch.zeros(0, dtype=torch.int64), 8)
    with pytest.raises(ValueError, match="batch_size must be a whole number, at least 1, got 0"):
        by_examples(3, 0)
    with pytest.raises(ValueError, match="examples must be a whole number, at least 1, got 0"):
        by_examples(0, 3)

from collections import Counter

import pytest

from saccade.data.splitting import partition, rank

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_the_rank_is_the_same_on_every_machine():
    assert rank(7, b"abc").hex() == "67d704a67bd57317e3ba8f47d0f8db59"


def test_the_rank_depends_on_seed_and_content():
    assert len({rank(0, b"a"), rank(1, b"a"), rank(0, b"b"), rank(-1, b"a")}) == 4


@pytest.mark.parametrize(
    ("items", "expected"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (10, (8, 1, 1)), (30, (24, 3, 3))]
)
def test_equal_items_are_shared_out_as_they_should(items, expected):
    counts = Counter(partition([1] * items, SHARES))
    assert tuple(counts[name] for name in SHARES) == expected


def test_heavy_items_are_counted_by_their_weight():
    weights = [13, 2, 3, 40, 1, 7, 5, 5, 11, 2, 3, 17, 1, 1, 2, 3, 2, 2, 1, 1]
    chosen = partition(weights, SHARES)
    have = Counter()
    for name, weight in zip(chosen, weights, strict=True):
        have[name] += weight
    for name, share in SHARES.items():
        assert abs(have[name] / sum(weights) - share) < 0.03

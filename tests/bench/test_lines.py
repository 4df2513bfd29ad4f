import itertools

import pytest

from saccade.bench.lines import apart, styles


def test_names_that_have_room_stay_where_their_lines_end():
    assert apart([0.1, 0.5, 0.9], [0.1, 0.1, 0.1]) == pytest.approx([0.1, 0.5, 0.9])


def test_names_at_one_place_stand_around_it():
    assert apart([0.5, 0.5], [0.1, 0.1]) == pytest.approx([0.45, 0.55])
    assert apart([0.5, 0.5, 0.5], [0.1, 0.2, 0.1]) == pytest.approx([0.35, 0.5, 0.65])


def test_no_name_covers_another_or_leaves_the_picture():
    wanted, heights = [0.0, 0.01, 0.02, 0.3, 0.31, 0.36, 0.8], [0.05, 0.1, 0.05, 0.15, 0.05, 0.05, 0.05]
    places = apart(wanted, heights)
    edges = [(place - height / 2, place + height / 2) for place, height in zip(places, heights, strict=True)]
    assert edges[0][0] >= 0
    assert all(top <= bottom + 1e-9 for (_, top), (bottom, _) in itertools.pairwise(edges))
    assert places[-1] == pytest.approx(0.8)


def test_dense_attention_always_looks_the_same_and_no_two_are_alike():
    names = [f"local(left={i})" for i in range(12)]
    found = styles([*names, "full"])
    assert found["full"] == styles(["full"])["full"]
    assert len({tuple(each.values()) for each in found.values()}) == 13

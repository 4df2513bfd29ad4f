import pytest
import torch
from evidence_cases import banded, softmax_weights

from saccade.bench.evidence.mean_weights import MeanWeights, diagonal_sums, distances_of


def test_each_place_is_a_mean_over_the_examples_that_reach_it():
    examples = [softmax_weights(2, 3, n, n, seed=n) for n in (5, 7, 4)]
    means = MeanWeights(7)
    for each in examples:
        means.add(each)
    for q in range(7):
        for k in range(7):
            there = [each[:, :, q, k] for each in examples if max(q, k) < each.shape[-1]]
            torch.testing.assert_close(means.mean[:, :, q, k], torch.stack(there).mean(0))


def test_the_mean_at_each_distance_is_over_its_pairs():
    examples = [softmax_weights(2, 3, n, n, seed=n) for n in (5, 7)]
    means = MeanWeights(7)
    for each in examples:
        means.add(each)
    for index, distance in enumerate(range(-6, 7)):
        pairs = [
            each[:, :, q, k]
            for each in examples
            for q in range(each.shape[-1])
            for k in range(each.shape[-1])
            if q - k == distance
        ]
        torch.testing.assert_close(means.mean_by_distance[..., index], torch.stack(pairs).mean(0))


def test_keys_before_the_query_are_at_positive_distances():
    weights = torch.zeros(4, 4)
    weights[3, 1] = 1
    assert distances_of(4)[diagonal_sums(weights).bool()].tolist() == [2]


@pytest.mark.parametrize("shift", [-3, 0, 2])
def test_half_of_the_weight_lies_within_where_it_stands(shift):
    means = MeanWeights(9)
    means.add(torch.eye(9).roll(shift, 1).tril(max(shift, 0)).triu(min(shift, 0))[None, None])
    assert means.half_within.tolist() == [[abs(shift)]]


def test_half_of_a_window_is_half_as_far():
    means = MeanWeights(101)
    means.add(banded(101, 20, layers=2, heads=3))
    assert means.half_within.shape == (2, 3)
    assert (means.half_within == 10).all()

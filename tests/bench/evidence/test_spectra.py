import pytest
import torch
from evidence_cases import banded, of_rank, softmax_weights

from saccade.bench.evidence.spectra import GRID, Spectra, cumulative, needed, numerical_rank


def spectra_of(*examples):
    spectra = Spectra()
    for each in examples:
        spectra.add(each)
    return spectra


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_matrix_of_rank_r_needs_r_values(rank):
    spectra = spectra_of(of_rank(rank, 24, layers=2, heads=3))
    for found in (spectra.rank, spectra.needed(0.99), spectra.needed(0.99, "squares")):
        assert found.shape == (2, 3)
        assert (found == rank).all()


def test_low_rank_products_have_their_rank():
    left, right = (torch.rand(32, 5, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    product = left @ right.T
    assert spectra_of((product / product.sum(-1, keepdim=True))[None, None]).rank.item() == 5


def test_counts_are_those_of_torch():
    weights = softmax_weights(2, 3, 17, 17)
    spectra = spectra_of(weights)
    for layer in range(2):
        for head in range(3):
            values = torch.linalg.svdvals(weights[layer, head].double())
            for kind, power in (("sum", 1), ("squares", 2)):
                held = values**power
                count = next(c for c in range(1, 18) if held[:c].sum() >= 0.9 * held.sum())
                assert spectra.needed(0.9, kind)[layer, head] == count
            torch.testing.assert_close(spectra.curve[layer, head, -1].item(), 1.0)
            expected = values[:5].sum() / values.sum()
            # A quarter of 17 is more than 4 values.
            torch.testing.assert_close(spectra.curve[layer, head, GRID // 4], expected)


def test_spectra_are_averaged_and_not_the_weights():
    one = torch.eye(6)[None, None]
    other = one.flip(-1)
    assert spectra_of(one, other).needed(0.99).item() == 6
    assert spectra_of((one + other) / 2).needed(0.99).item() == 3


def test_examples_of_different_lengths_meet_at_equal_shares():
    spectra = spectra_of(of_rank(10, 20), of_rank(10, 40))
    assert spectra.length == 30
    assert spectra.curve[0, 0, 25].item() == pytest.approx((0.5 + 1.0) / 2)
    assert spectra.curve[0, 0, 0].item() == 0
    assert spectra.rank.item() == 10


def test_a_window_is_not_low_rank():
    assert spectra_of(banded(64, 2)).needed(0.9).item() > 32


def test_pieces():
    curve = cumulative(torch.tensor([2.0, 1.0, 1.0], dtype=torch.double))
    assert curve.tolist() == [0.5, 0.75, 1.0]
    assert [needed(curve, share).item() for share in (0.5, 0.51, 0.75, 1.0)] == [1, 2, 2, 3]
    assert numerical_rank(torch.tensor([1.0, 1e-6, 1e-8]), 1e-7).item() == 2

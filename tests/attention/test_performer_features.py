"""What is random in Performer: its directions, when they are drawn, and how near they come to softmax attention."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from mechanism_cases import D, G, H, inputs

import oracles
import oracles_performer as oracle
from saccade.attention import MECHANISMS, after_step
from saccade.attention.mechanisms._performer.directions import drawn_directions

DIM, FEATURES, SEEDS = 8, 16, 2000


def performer(**options):
    return MECHANISMS["performer"](**{"features": 7, **options})


@pytest.mark.parametrize("features", [1, 5, 8, 16, 21])
def test_directions_are_orthogonal_in_blocks_of_their_dim(features):
    drawn = drawn_directions((0, 0, 0), 3, features, DIM)
    assert drawn.shape == (3, features, DIM)
    for head in drawn:
        for block in head.split(DIM):
            products = block @ block.mT
            torch.testing.assert_close(products, products.diagonal().diag(), rtol=0, atol=1e-12)


def test_their_lengths_are_those_of_normal_numbers_or_all_alike():
    chi = drawn_directions((0, 0, 0), 1, 8000, DIM)[0].square().sum(1)
    assert abs(chi.mean() - DIM) < 4 * math.sqrt(2 * DIM / 8000)
    assert abs(chi.var() / (2 * DIM) - 1) < 0.15
    alike = drawn_directions((0, 0, 0), 2, 21, DIM, "sqrt_d").norm(dim=2)
    torch.testing.assert_close(alike, torch.full_like(alike, math.sqrt(DIM)))


def test_no_direction_is_likelier_than_another():
    """The orthogonal factor of a QR decomposition alone leans to one side: its first numbers have one sign."""
    drawn = drawn_directions((0, 0, 0), 1, 8000, DIM)[0]
    assert (drawn.mean(0).abs() < 4 / math.sqrt(8000)).all()
    covariance = drawn.mT @ drawn / 8000
    torch.testing.assert_close(covariance, torch.eye(DIM, dtype=torch.float64), rtol=0, atol=4 * math.sqrt(2 / 8000))


@pytest.fixture(scope="module")
def estimates():
    """Of three weights, from many seeds: the softmax kernel, orthogonal and independent directions."""
    generator = torch.Generator().manual_seed(4)
    x, y = (0.35 * torch.randn(1, 3, 1, DIM, generator=generator, dtype=torch.float64) for _ in range(2))
    orthogonal = drawn_directions((3, 1, 0), SEEDS, FEATURES, DIM)
    independent = torch.randn(SEEDS, FEATURES, DIM, generator=generator, dtype=torch.float64)
    found = {}
    for name, directions in (("orthogonal", orthogonal), ("independent", independent)):
        phi = [
            oracle.features(each[0].expand(SEEDS, -1, 3, -1).reshape(1, SEEDS, 3, DIM), directions)
            for each in (x.transpose(1, 2), y.transpose(1, 2))
        ]
        found[name] = (phi[0] * phi[1]).sum(-1)[0]
    return found, oracle.kernel(x, y)[0, :, 0], oracle.variance(x, y, FEATURES)[0, :, 0]


@pytest.mark.parametrize("name", ["orthogonal", "independent"])
def test_weights_are_right_on_average(estimates, name):
    found, wanted, _ = estimates
    error = found[name].mean(0) - wanted
    assert (error.abs() < 4 * found[name].std(0) / math.sqrt(SEEDS)).all()


def test_their_variance_is_that_of_lemma_2_and_less_where_directions_are_orthogonal(estimates):
    found, _, variance = estimates
    torch.testing.assert_close(found["independent"].var(0), variance, rtol=0.25, atol=0)
    assert (found["orthogonal"].var(0) < 0.95 * variance).all()


def errors(features, draws, causal):
    """The root mean square distance to softmax attention."""
    n = 40
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, draws, n, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    q, k, v = (x[:, :1].expand_as(x) for x in (q / 2, k / 2, v))
    seen = oracles.dense(oracles.causal() if causal else oracles.full(), n, n)
    layer = performer(features=features).build(draws, 8).double()  # each head has directions of its own
    error = layer(q, k, v, causal=causal) - oracles.attention(q, k, v, seen)
    return float(error.square().mean().sqrt())


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_the_error_falls_as_one_over_the_root_of_features(causal):
    sizes = [64, 256, 1024, 4096]
    found = [errors(features, 24, causal) for features in sizes]
    x, y = (torch.tensor(each).log() for each in (sizes, found))
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert -0.6 < slope < -0.4, found
    assert found[-1] < 0.01


def test_directions_come_from_seed_layer_and_key_head():
    spec = performer()
    first = spec.build(H, D, G).directions
    assert first.shape == (G, 7, D)
    assert torch.equal(spec.build(H, D, G).directions, first)
    others = [spec.build(H, D, G, layer=1).directions, performer(seed=1).build(H, D, G).directions, *first.split(1)[1:]]
    assert not any(torch.equal(other[:1], first[:1]) for other in others)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    spec.build(H, D, G)
    assert torch.equal(torch.get_rng_state(), before)
    torch.set_default_dtype(torch.float64)
    try:
        double = spec.build(H, D, G).directions
    finally:
        torch.set_default_dtype(torch.float32)
    assert double.dtype == torch.float64
    assert torch.equal(double.float(), first)
    with torch.device("meta"):
        assert spec.build(H, D, G).directions.is_meta


def test_directions_are_drawn_anew_after_so_many_steps_and_then_again():
    layer, seen = performer(redraw=3).build(H, D, G), []
    for _ in range(7):
        seen.append(layer.directions.clone())
        after_step(layer)
    assert [torch.equal(one, other) for one, other in itertools.pairwise(seen)] == [True, True, False] * 2
    assert not torch.equal(seen[0], layer.directions)
    assert int(layer.steps) == 7


@pytest.mark.parametrize("options", [{"redraw": 0}, {"redraw": 1000}], ids=str)
def test_they_rest_until_then_and_in_evaluation(options):
    q, k, v, _ = (x.float() for x in inputs(9, 9))
    layer = performer(**options).build(H, D, G)
    before, out = layer.directions.clone(), layer(q, k, v[..., :D])
    for _ in range(5):
        after_step(layer)
    still = performer(redraw=1).build(H, D, G).eval()
    after_step(still)
    assert torch.equal(layer.directions, before)
    assert torch.equal(still.directions, before)
    assert torch.equal(layer(q, k, v[..., :D]), out)
    assert torch.equal(layer.eval()(q, k, v[..., :D]), out)
    assert int(still.steps) == 0


def test_every_worker_and_every_resumed_run_draws_the_same():
    spec = performer(redraw=2)
    one, other = (spec.build(H, D, G, layer=3) for _ in range(2))
    for seed, worker in enumerate((one, other)):
        torch.manual_seed(seed)
        for _ in range(3):
            after_step(worker)
    assert torch.equal(one.directions, other.directions)
    assert list(one.state_dict()) == ["directions", "steps"]
    resumed = spec.build(H, D, G, layer=3)
    resumed.load_state_dict(one.state_dict())
    copies = [resumed, copy.deepcopy(one), pickle.loads(pickle.dumps(one))]
    for layer in (one, *copies):
        after_step(layer)
    assert all(torch.equal(layer.directions, one.directions) for layer in copies)
    assert not torch.equal(one.directions, other.directions)


def test_new_directions_keep_their_dtype():
    layer = performer(redraw=1).build(H, D, G).double()
    after_step(layer)
    assert layer.directions.dtype == torch.float64
    torch.testing.assert_close(layer.directions, drawn_directions((0, 0, 1), G, 7, D), rtol=0, atol=0)

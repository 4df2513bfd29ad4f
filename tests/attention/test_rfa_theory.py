"""Random features against their theory: no bias, the variance that is derived, and the softmax they converge to."""

import math

import pytest
import torch
from torch.nn.functional import normalize

import oracles_rfa
from saccade.attention import MECHANISMS
from saccade.attention.mechanisms._feature_map import Cut
from saccade.attention.mechanisms._rfa.draws import drawn
from saccade.attention.mechanisms._rfa.features import KERNELS, directions_of

DIM, FEATURES, SEEDS = 6, 16, 4000


def products(kernel, x, y, seeds=SEEDS):
    """Phi(x) . phi(y) as the paper scales it, for every pair and many seeds; made by the mechanism's own features."""
    count = directions_of(kernel, FEATURES)
    directions = torch.cat([drawn(seed, 0, [0], count, DIM) for seed in range(seeds)]).double()
    phi = KERNELS[kernel](directions)
    found = [features_of(phi, rows.expand(seeds, -1, -1)) for rows in (x, y)]
    return (found[0] * found[1]).sum(-1) / count


def features_of(phi, x):
    from saccade.attention.backends._tiles import Workspace

    return phi.features(Workspace(x.dtype, x.device), "x", x, Cut(slice(None), slice(None)))


def pairs(length):
    """Ten pairs of vectors as long as tempered units, from equal ones to opposite ones."""
    x, other = torch.randn(2, 10, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    share = torch.linspace(-1, 1, 10, dtype=torch.float64)[:, None]
    x = normalize(x, dim=-1)
    other = normalize(other - (other * x).sum(-1, keepdim=True) * x, dim=-1)
    return length * x, length * (share * x + (1 - share**2).sqrt() * other)


@pytest.mark.parametrize("length", [1.0, 2.0], ids=["temperature 1", "temperature 1/2"])
def test_sines_and_cosines_have_no_bias_and_the_variance_that_theory_says(length):
    x, y = pairs(length)
    found = products("gaussian", x, y)
    mean, variance = oracles_rfa.gaussian_kernel(x, y), oracles_rfa.gaussian_variance(x, y, FEATURES // 2)
    assert ((found.mean(0) - mean).abs() <= 4 * (variance / SEEDS).sqrt() + 1e-12).all()
    # The sample variance of a mean of 8 bounded draws is off by less than that of a normal one, var * sqrt(2 / seeds).
    assert ((found.var(0) - variance).abs() <= 4 * variance * math.sqrt(2.5 / SEEDS) + 1e-12).all()
    assert (variance.diff() < 0).all(), "what is alike is estimated best"


def test_what_is_positive_of_projections_estimates_the_arc_cosine_kernel():
    x, y = pairs(1.0)
    found = products("arccos", x, y)
    assert ((found.mean(0) - oracles_rfa.arccos_kernel(x, y)).abs() <= 4 * (found.var(0) / SEEDS).sqrt() + 1e-12).all()


def errors(features, temperature, seeds):
    """Root mean square distance of outputs from the softmax that they estimate."""
    generator = torch.Generator().manual_seed(7)
    q, k, v = (torch.randn(1, 2, n, DIM, generator=generator, dtype=torch.float64) for n in (20, 30, 30))
    wanted, found = oracles_rfa.tempered_softmax(q, k, v, temperature), []
    for seed in range(seeds):
        layer = MECHANISMS["rfa"](features=features, temperature=temperature, seed=seed).build(2, DIM).double()
        found.append(layer(q, k, v).detach() - wanted)
    found = torch.stack(found)
    return found.square().mean().sqrt().item(), found.mean(0).square().mean().sqrt().item()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_outputs_converge_to_the_softmax_of_unit_vectors_by_the_root_of_the_features(temperature):
    seeds = 60
    few, some, many = (errors(features, temperature, seeds)[0] for features in (128, 512, 2048))
    assert few / some == pytest.approx(2, rel=0.25)
    assert some / many == pytest.approx(2, rel=0.25)
    assert errors(100_000, temperature, 1)[0] < 0.02


def test_the_bias_of_a_ratio_falls_faster_than_its_noise():
    """Numerator and denominator have no bias; their quotient has one of the order of 1 / features."""
    seeds = 200
    noise, bias = errors(512, 1.0, seeds)
    assert bias < 3 * noise / math.sqrt(seeds)


def test_at_first_it_is_the_softmax_of_unit_vectors_over_the_squared_temperature():
    layer = MECHANISMS["rfa"](features=100_000, temperature=0.6).build(2, DIM, value_dim=3).double()
    generator = torch.Generator().manual_seed(3)
    q, k, v = (
        torch.randn(2, 2, n, d, generator=generator, dtype=torch.float64) for n, d in ((9, DIM), (12, DIM), (12, 3))
    )
    wanted = oracles_rfa.tempered_softmax(5 * q, 0.1 * k, v, 0.6)
    torch.testing.assert_close(layer(q, k, v), wanted, rtol=0, atol=0.03)

"""The feature maps of linear attention against their papers, and linear attention with each of them."""

from functools import partial

import pytest
import torch
from mechanism_cases import B, D, G, H, assert_same, build, inputs, with_gradients

import oracles
import oracles_features
from saccade.attention import MECHANISMS, to_mechanism
from saccade.attention.backends._tiles import Workspace
from saccade.attention.mechanisms import _feature_map
from saccade.attention.mechanisms._feature_map import Cut
from saccade.attention.mechanisms._linear.maps import MAPS, POSITIVE, Dpfp

ORACLES = {
    "elu": oracles_features.elu,
    "relu": oracles_features.relu,
    "dpfp": partial(oracles_features.dpfp, nu=1),
    "taylor": oracles_features.taylor,
    "hedgehog": oracles_features.hedgehog,
}
every = pytest.mark.parametrize("feature", MAPS)
both_and_causal = pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])


def spec(feature):
    return MECHANISMS["linear"](feature=feature)


def moved(layer):
    """With matrices that are not the identity, where there are some."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for matrix in layer.parameters():
            matrix.add_(0.5 * torch.randn(matrix.shape, generator=generator))
    return layer.double()


def by_definition(layer, q, k, v, allowed):
    """The attention of the paper's features, with the layer's matrices."""
    if layer.Wq is not None:
        q, k = torch.einsum("bhnd,hde->bhne", q, layer.Wq), torch.einsum("bgnd,gde->bgne", k, layer.Wk)
    phi = ORACLES[layer.spec.feature]
    return oracles_features.attention_by_features(phi(q), phi(k), v, allowed)


def test_every_map_has_an_oracle():
    assert list(ORACLES) == list(MAPS)
    assert set(POSITIVE) < set(MAPS)


@every
@both_and_causal
@pytest.mark.parametrize("n", [1, 2, 63, 65, 130])
def test_linear_with_any_map_equals_its_definition(feature, causal, n):
    q, k, v, upstream = inputs(n, n)
    key_mask = torch.arange(n)[None] % 7 != torch.tensor([[3], [0]])
    allowed = key_mask[:, None, None]
    allowed = allowed & oracles.dense(oracles.causal(), n, n) if causal else allowed
    layer = moved(build(spec(feature)))
    wanted = with_gradients(lambda *qkv: by_definition(layer, *qkv, allowed), q, k, v, upstream=upstream)
    actual = with_gradients(lambda *qkv: layer(*qkv, key_mask, causal), q, k, v, upstream=upstream)
    # Where nearly all weights are 0 their sum is small, and gradients divide by its square.
    assert_same(actual, wanted, 1e-12 if feature in POSITIVE else 1e-11)


@pytest.mark.parametrize("nu", [1, 2, 3, 9])
def test_dpfp_has_the_features_of_its_paper_in_some_order(nu):
    x = inputs(11, 11)[0].flatten(0, 1)
    cut = Cut(slice(0, len(x)), slice(0, 11))
    found = Dpfp(nu).features(Workspace(x.dtype, x.device), "x", x, cut)
    assert found.shape[2] == Dpfp(nu).size(D) == 2 * D * nu
    torch.testing.assert_close(found.sort(-1).values, oracles_features.dpfp(x, nu).sort(-1).values, rtol=0, atol=1e-15)


@every
def test_slopes_are_those_of_the_features(feature):
    """`gradcheck` of each map alone, away from the kinks at 0."""
    phi = spec(feature).map()
    x = inputs(4, 4)[0].flatten(0, 1)
    cut, work = Cut(slice(0, len(x)), slice(0, 4)), Workspace(x.dtype, x.device)

    class Mapped(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return phi.features(work, "x", x, cut).clone()

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return phi.slope(x, phi.features(work, "x", x, cut), grad.clone(), cut).clone()

    assert torch.autograd.gradcheck(Mapped.apply, [x.requires_grad_()])


def test_taylor_is_near_a_softmax_where_scores_are_small():
    """The rest of the series is s^3 / 6."""
    q, k, v, _ = inputs(40, 40)
    allowed = torch.ones(40, 40, dtype=torch.bool)
    for size in (0.3, 0.1):
        softmax = oracles.attention(size * q, size * k, v, allowed)
        found = build(spec("taylor"))(size * q, size * k, v)
        largest = size**2 * (q @ oracles.repeat_heads(k, H).mT).abs().max() / D**0.5
        assert (found - softmax).abs().max() < largest**3 * v.abs().max()


def test_hedgehog_begins_as_the_identity_and_learns():
    layer = build(spec("hedgehog"))
    assert layer.Wq.shape == (H, D, D)
    assert layer.Wk.shape == (G, D, D)
    assert all(torch.equal(each, torch.eye(D)) for matrix in (layer.Wq, layer.Wk) for each in matrix)
    q, k, v, _ = inputs(70, 70, torch.float32)
    layer(q, k, v, causal=True).square().sum().backward()
    assert all(matrix.grad.abs().max() > 1e-4 for matrix in (layer.Wq, layer.Wk))


@pytest.mark.parametrize("feature", [name for name in MAPS if name != "hedgehog"])
def test_other_maps_have_no_parameters(feature):
    assert not list(build(spec(feature)).parameters())


@both_and_causal
@pytest.mark.parametrize("feature", ["relu", "dpfp"])
def test_where_no_feature_is_shared_there_are_zeros_and_no_gradient(feature, causal):
    """Queries are positive in the first half of their numbers only, keys in the second."""
    n = 70
    q, k, v, upstream = inputs(n, n)
    first = torch.arange(D) < D // 2
    q, k = (torch.where(first, sign * x.abs(), -sign * x.abs()) for sign, x in ((1, q), (-1, k)))
    found = with_gradients(
        lambda *qkv: build(spec(feature))(*qkv, causal=causal), q.clamp(min=0), k.clamp(min=0), v, upstream=upstream
    )
    assert not any(each.any() for each in found)
    assert not spec(feature).claims.normalised


@pytest.mark.parametrize("feature", ["dpfp", "taylor", "hedgehog"])
@both_and_causal
def test_however_the_rows_are_cut_the_result_is_the_same(monkeypatch, feature, causal):
    q, k, v, upstream = inputs(300, 300)

    def run(*qkv):
        return build(spec(feature))(*qkv, causal=causal)

    wanted = with_gradients(run, q, k, v, upstream=upstream)
    monkeypatch.setattr(_feature_map, "ROWS", 128)
    assert_same(with_gradients(run, q, k, v, upstream=upstream), wanted, 1e-11)


@every
@both_and_causal
def test_maps_in_single_precision_are_as_good_as_plain_ones(feature, causal):
    n = 150
    q, k, v, upstream = inputs(n, n, torch.float32)
    allowed = oracles.dense(oracles.causal() if causal else oracles.full(), n, n)
    layer = moved(build(spec(feature)))
    doubles = [x.double() for x in (q, k, v)]
    wanted = with_gradients(lambda *qkv: by_definition(layer, *qkv, allowed), *doubles, upstream=upstream.double())
    layer = layer.float()
    plain = with_gradients(lambda *qkv: by_definition(layer, *qkv, allowed), q, k, v, upstream=upstream)
    actual = with_gradients(lambda *qkv: layer(*qkv, causal=causal), q, k, v, upstream=upstream)
    for one, other, exact in zip(actual, plain, wanted, strict=True):
        error, usual = ((x.double() - exact).abs().max() for x in (one, other))
        # Gradients divide by sums of weights that may be small by chance, squared: what matters is where they do.
        assert error <= 2 * usual + 1e-5 * exact.abs().max()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("linear(feature='cos')", "feature must be one of dpfp, elu, hedgehog, relu, taylor, got 'cos'"),
        ("linear(feature='dpfp', nu=0)", "nu must be"),
        ("linear(feature='relu', nu=2)", "nu must be 1 where feature='relu', as only dpfp moves, got 2"),
    ],
)
def test_what_is_no_map_is_refused(unchecked, text, message):
    with pytest.raises(ValueError, match=message):
        to_mechanism(text)


def test_dpfp_needs_as_many_numbers_as_it_moves():
    with pytest.raises(ValueError, match="nu must be less than twice the head dim, 10, got 10"):
        MECHANISMS["linear"](feature="dpfp", nu=10).build(2, 5)
    out = MECHANISMS["linear"](feature="dpfp", nu=9).build(H, D, G)(*inputs(B, B)[:3])
    assert out.isfinite().all()


@pytest.mark.parametrize("feature", ["relu", "dpfp"])
@pytest.mark.parametrize("causal", [False, True])
def test_features_that_nearly_vanish_leave_finite_gradients(feature, causal):
    q, k, v = (torch.full((1, 1, 3, 4), size, requires_grad=True) for size in (1e-20, 1e-20, 1.0))
    out = MECHANISMS["linear"](feature=feature).build(1, 4)(q, k, v, causal=causal)
    out.sum().backward()
    assert all(x.isfinite().all() for x in (out, q.grad, k.grad, v.grad))


def test_a_learned_map_refuses_other_sizes_than_its_own(unchecked):
    layer = MECHANISMS["linear"](feature="hedgehog").build(2, 4)
    q, k, v = (torch.randn(1, 2, 3, 5) for _ in range(3))
    with pytest.raises(ValueError, match=r"q must be of 2 heads of 4 numbers, .*, got '2 of 5'"):
        layer(q, k, v)

"""Random feature attention against the sums of its paper, query by query."""

import copy

import pytest
import torch
from mechanism_cases import B, D, E, G, H, assert_same, inputs, with_gradients
from rfa_cases import MASKS, N, as_oracle, mask_of, rfa

import oracles
import oracles_rfa
from saccade.attention import MECHANISMS, to_mechanism
from saccade.attention.mechanism import after_step
from saccade.attention.mechanisms import _feature_map
from saccade.nn import Encoder

forms = pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])


def seen_by(key_mask, causal, n_q, n_k, q_start=0):
    seen = torch.ones(B, 1, 1, n_k, dtype=torch.bool) if key_mask is None else key_mask[:, None, None]
    return seen & oracles.dense(oracles.causal(), n_q, n_k, q_start) if causal else seen.expand(-1, -1, n_q, -1)


@pytest.mark.parametrize("mask", MASKS)
@forms
@pytest.mark.parametrize(("n_q", "q_start"), [(13, 0), (4, 9), (5, 20), (20, 2)], ids=str)
def test_it_equals_the_sums_of_its_paper(mask, causal, n_q, q_start):
    compare_with_the_paper(rfa(), mask, causal, n_q, q_start)


@pytest.mark.parametrize("mask", ["none", "holes"])
@forms
def test_its_other_kernel_equals_the_sums_of_its_paper(mask, causal):
    compare_with_the_paper(rfa(kernel="arccos"), mask, causal, 9, 4)


def compare_with_the_paper(layer, mask, causal, n_q, q_start):
    q, k, v, upstream = inputs(n_q, N)
    key_mask = mask_of(mask)
    seen = seen_by(key_mask, causal, n_q, N, q_start)
    wanted = with_gradients(lambda *qkv: oracles_rfa.rfa(*qkv, seen, **as_oracle(layer)), q, k, v, upstream=upstream)
    actual = with_gradients(
        lambda *qkv: layer(*qkv, key_mask=key_mask, causal=causal, q_start=q_start), q, k, v, upstream=upstream
    )
    assert_same(actual, wanted)


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 129, 200])
@forms
def test_odd_lengths_and_the_gradient_of_its_scales(n, causal):
    q, k, v, upstream = inputs(n, n)
    key_mask = torch.arange(n)[None] % 7 != torch.tensor([[3], [8]])
    layer = rfa()
    options, sigma = as_oracle(layer), layer.sigma.detach().clone().requires_grad_()
    wanted = oracles_rfa.rfa(q, k, v, seen_by(key_mask, causal, n, n), **(options | {"sigma": sigma}))
    actual = layer(q, k, v, key_mask, causal)
    torch.testing.assert_close(actual, wanted, rtol=1e-10, atol=1e-12)
    (to_sigma,) = torch.autograd.grad(actual, layer.sigma, upstream)
    torch.testing.assert_close(to_sigma, torch.autograd.grad(wanted, sigma, upstream)[0], rtol=1e-9, atol=1e-9)


@forms
def test_gradcheck(causal):
    q, k, v, _ = inputs(5, 7, batch=1)
    mask = torch.arange(7)[None] < 6
    layer = rfa(features=12)
    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]
    assert torch.autograd.gradcheck(
        lambda q, k, v, _: layer(q, k, v, key_mask=mask, causal=causal, q_start=1),
        [*leaves, layer.sigma],
        fast_mode=True,
    )


@forms
@pytest.mark.parametrize(("rows", "chunk"), [(64, 64), (128, 32), (5, 5), (2048, 7)], ids=str)
@pytest.mark.parametrize("n", [1, 65, 129])
def test_any_cut_gives_the_same(monkeypatch, n, rows, chunk, causal):
    q, k, v, upstream = inputs(n, n)
    layer = rfa()
    wanted = with_gradients(lambda *qkv: layer(*qkv, causal=causal), q, k, v, upstream=upstream)
    monkeypatch.setattr(_feature_map, "ROWS", rows)
    monkeypatch.setattr(_feature_map, "CHUNK", chunk)
    actual = with_gradients(lambda *qkv: layer(*qkv, causal=causal), q, k, v, upstream=upstream)
    assert_same(actual, wanted, 1e-10)


@forms
def test_lengths_of_queries_and_keys_do_not_matter(causal):
    """The paper's normalisation: the factors exp(|x|^2 / 2) of the softmax kernel are constant and cancel."""
    q, k, v, _ = inputs(40, 40)
    layer = rfa()
    longer = layer(3.7 * q, 0.2 * k, v, causal=causal)
    torch.testing.assert_close(longer, layer(q, k, v, causal=causal), rtol=0, atol=1e-10)


@forms
def test_a_token_without_direction_has_a_gradient_in_bounds(causal):
    q, k, v, upstream = inputs(9, 9)
    q[:, :, 4], k[:, :, 2] = 0, 0
    q[:, :, 5] *= 1e-5
    layer = rfa()
    found = with_gradients(lambda *qkv: layer(*qkv, causal=causal), q, k, v, upstream=upstream)
    seen = seen_by(None, causal, 9, 9)
    wanted = with_gradients(lambda *qkv: oracles_rfa.rfa(*qkv, seen, **as_oracle(layer)), q, k, v, upstream=upstream)
    assert all(each.isfinite().all() for each in found)
    assert_same(found, wanted)


@forms
def test_a_small_sum_of_weights_divides_by_the_least_and_keeps_its_gradient(causal):
    """Features have signs, so a sum of weights may vanish or be negative, where it is its size that counts."""
    layer = rfa(features=2, temperature=0.2, least_weight=0.3)
    q, k, v, upstream = inputs(40, 40)
    seen, given = seen_by(None, causal, 40, 40), as_oracle(layer)
    phi = [oracles_rfa.all_features(x, **{name: given[name] for name in given if name != "least"}) for x in (q, k)]
    total = (phi[0] @ oracles.repeat_heads(phi[1], H).mT * seen).sum(-1)
    assert (total.abs() < 0.3).any()
    assert (total < -0.3).any()
    wanted = with_gradients(lambda *qkv: oracles_rfa.rfa(*qkv, seen, **given), q, k, v, upstream=upstream)
    assert_same(with_gradients(lambda *qkv: layer(*qkv, causal=causal), q, k, v, upstream=upstream), wanted)


@forms
def test_where_all_keys_are_hidden_there_are_zeros_and_no_gradient(causal):
    q, k, v, upstream = inputs(70, 70)
    hidden = torch.zeros(B, 70, dtype=torch.bool)
    found = with_gradients(lambda *qkv: rfa()(*qkv, key_mask=hidden, causal=causal), q, k, v, upstream=upstream)
    assert all(torch.equal(each, torch.zeros_like(each)) for each in found)


@forms
@pytest.mark.parametrize(("batch", "n_q", "n_k"), [(B, 0, 0), (B, 0, 5), (B, 5, 0), (0, 5, 5)], ids=str)
def test_nothing_gives_nothing(batch, n_q, n_k, causal):
    q, k, v, upstream = inputs(n_q, n_k, batch=batch)
    out, *gradients = with_gradients(lambda *qkv: rfa()(*qkv, causal=causal), q, k, v, upstream=upstream)
    assert out.shape == upstream.shape
    assert not any(each.any() for each in (out, *gradients))


@forms
def test_masks_hide_features_and_not_keys(causal):
    """Known defect of peers: phi(0) is not 0, so a zeroed key still weighs in the sum."""
    n, real = 20, 12
    q, k, v, _ = inputs(n, n)
    mask = torch.arange(n)[None].expand(B, n) < real
    layer = rfa()
    padded = layer(q, k, v, key_mask=mask, causal=causal)[:, :, :real]
    alone = layer(*(x[:, :, :real] for x in (q, k, v)), causal=causal)
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-11)


def test_later_tokens_change_nothing_to_the_last_bit():
    q, k, v, _ = inputs(200, 200)
    layer = rfa()
    short = layer(*(x[:, :, :130] for x in (q, k, v)), causal=True)
    torch.testing.assert_close(layer(q, k, v, causal=True)[:, :, :130], short, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@forms
def test_in_lower_precision_it_is_as_right_as_its_plain_form_in_single(dtype, causal):
    q, k, v, _ = inputs(250, 250, dtype)
    layer = rfa(features=256, temperature=1).float().to(dtype)
    assert layer.directions.dtype == torch.float32
    seen = seen_by(None, causal, 250, 250)
    wanted = oracles_rfa.rfa(*(x.double() for x in (q, k, v)), seen, **as_oracle(copy.deepcopy(layer).double()))
    options = {**as_oracle(layer), "sigma": layer.sigma.detach().float()}
    plain = oracles_rfa.rfa(*(x.float() for x in (q, k, v)), seen, **options).to(dtype)
    out = layer(q, k, v, causal=causal)
    assert out.dtype == dtype
    assert (out.double() - wanted).abs().max() <= 2 * (plain.double() - wanted).abs().max() + 1e-6


def test_autocast_does_not_reach_it():
    q, k, v, _ = inputs(40, 40, torch.float32)
    layer = rfa().float()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(q, k, v, causal=True), layer(q, k, v, causal=True))
        out = layer(q, k, v, causal=True)
    assert torch.equal(out, layer(q, k, v, causal=True))


def test_a_state_is_as_large_after_any_number_of_tokens():
    layer = rfa()
    for n in (0, 1, 300):
        q, k, v, _ = inputs(n, n)
        state = layer.prefill(q, k, v)[1]
        assert [leaf.shape for leaf in state] == [(B, G, 32, E), (B, G, 32, 1)]
    with pytest.raises(ValueError, match=r"state.s must be of shape \(2, 3, 32, 7\)"):
        layer.step(*inputs(1, 1)[:3], rfa(features=30).initial_state(B, torch.float64))


def test_training_draws_from_the_pool_after_each_step_and_evaluation_never():
    layer = rfa(pool=5)
    first, seen = layer.directions.clone(), set()
    q, k, v, _ = inputs(N, N)
    evaluated = layer.eval()(q, k, v)
    assert torch.equal(layer.train()(q, k, v), evaluated), "before the first step both use the first draw"
    for step in range(40):
        before = layer(q, k, v)
        assert torch.equal(layer(q, k, v), before), "a forward pass draws nothing"
        layer.after_step()
        assert int(layer.steps) == step + 1
        seen |= {tuple(head.flatten()[:3].tolist()) for head in layer.in_training}
        assert torch.equal(layer.directions, first)
        assert torch.equal(layer.eval()(q, k, v), evaluated)
        layer.train()
    assert len(seen) == 5 * G, "each head has a pool of its own and uses all of it"
    assert {tuple(head.flatten()[:3].tolist()) for head in first} < seen


def test_every_worker_and_every_continued_run_draws_alike():
    one, other = rfa(), rfa()
    torch.manual_seed(1)
    for _ in range(3):
        one.after_step()
    torch.manual_seed(2)
    for _ in range(2):
        other.after_step()
    third = rfa(seed=9)
    third.load_state_dict(other.state_dict())
    assert torch.equal(third.in_training, other.in_training)
    other.after_step()
    assert torch.equal(one.in_training, other.in_training)
    assert one.state_dict().keys() == {"sigma", "directions", "in_training", "steps"}


def test_one_draw_is_kept_for_good():
    layer = rfa(pool=1)
    before = copy.deepcopy(layer.state_dict())
    layer.after_step()
    assert before.keys() == {"sigma", "directions"}
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_layers_heads_and_seeds_draw_apart_and_torch_is_left_alone():
    torch.manual_seed(4)
    wanted = torch.get_rng_state()
    layers = [MECHANISMS["rfa"](seed=seed).build(H, D, G, E, layer=layer) for seed in (0, 1) for layer in (0, 1)]
    assert torch.equal(torch.get_rng_state(), wanted)
    rows = [tuple(head[0].tolist()) for layer in layers for head in layer.directions]
    assert len(set(rows)) == len(rows) == 4 * G
    again = MECHANISMS["rfa"]().build(H, D, G, E)
    assert torch.equal(again.directions, layers[0].directions)
    assert abs(torch.cat([layer.directions for layer in layers]).std() - 1) < 0.05


def test_an_encoder_moves_on_every_layer():
    encoder = Encoder(width=12, heads=2, layers=2, mechanism="rfa(features=8, pool=7)")
    after_step(encoder)
    assert [int(block.attention.layer.steps) for block in encoder.layers] == [1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 0}, "features must be a whole number, at least 1, got 0"),
        ({"features": 3}, "features must be even, a sine and a cosine for each direction, got 3"),
        ({"features": 2.0}, "features must be a whole number"),
        ({"gate": 1}, "gate must be True or False, got 1"),
        ({"temperature": 0}, "temperature must be a number above 0, got 0"),
        ({"temperature": "warm"}, "temperature must be a number above 0, got 'warm'"),
        ({"least_weight": -1e-3}, "least_weight must be a number above 0, got -0.001"),
        ({"least_weight": float("inf")}, "least_weight must be a number above 0, got inf"),
        ({"kernel": "gausian"}, "kernel must be one of arccos, gaussian, got 'gausian' .did you mean 'gaussian'"),
        ({"pool": 0}, "pool must be a whole number, at least 1, got 0"),
        ({"seed": -1}, "seed must be a whole number, at least 0, got -1"),
    ],
    ids=str,
)
def test_options_that_make_no_features_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        MECHANISMS["rfa"](**options)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((2 * H, D, G, E), "q must be of 12 heads of 5 numbers, for which the layer was built, got '6 of 5'"),
        ((H, D, H, E), "k must be of 6 heads of 5 numbers, for which the layer was built, got '3 of 5'"),
        ((H, D, G, E + 1), "v must be of 3 heads of 8 numbers, for which the layer was built, got '3 of 7'"),
    ],
    ids=str,
)
def test_sizes_it_was_not_built_for_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        MECHANISMS["rfa"](features=4).build(*sizes)(*inputs(5, 5)[:3])


def test_global_tokens_may_stand_in_front_but_gates_forget_them():
    assert to_mechanism("rfa").behind(2) == to_mechanism("rfa")
    with pytest.raises(ValueError, match="mechanism must be one in which all see all"):
        to_mechanism("rfa(gate=True)").behind(2)

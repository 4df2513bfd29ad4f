"""What Sinkhorn attention promises besides: noise, precision, views, saving, refusals, claims."""

import pytest
import torch
from mechanism_cases import assert_same, with_gradients
from sinkhorn_cases import FORMS, B, D, E, G, H, build, forms, inputs, plain, run

from saccade.attention import MECHANISMS, to_mechanism


@forms
def test_noise_is_drawn_in_training_and_not_in_evaluation(form):
    n = 18
    q, k, v, _ = inputs(n)
    layer = build(form)
    before = torch.get_rng_state()
    still = run(layer, form)(q, k, v)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(run(build(form, gumbel=0).train(), form)(q, k, v), still) or layer.net is not None
    layer.train()
    first, second = run(layer, form)(q, k, v), run(layer, form)(q, k, v)
    assert (first - second).abs().max() > 1e-3
    assert (first - still).abs().max() > 1e-3


def test_decoding_draws_no_noise():
    n = 18
    q, k, v, _ = inputs(n)
    layer = build().train()
    before = torch.get_rng_state()
    out, state = layer.prefill(*(x[:, :, :9] for x in (q, k, v)))
    layer.step(*(x[:, :, 9:10] for x in (q, k, v)), state)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(out, layer.eval()(q, k, v, causal=True)[:, :, :9], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_low_precision_is_at_most_twice_as_far_off_as_torchs_own_operations(dtype):
    n = 128
    q, k, v, upstream = inputs(n, dtype, groups=H)
    doubles = [x.double() for x in (q, k, v)]
    exact = with_gradients(plain, *doubles, upstream=upstream.double())
    reference = with_gradients(plain, q, k, v, upstream=upstream)
    layer = MECHANISMS["sinkhorn"](block=8).build(H, D, value_dim=E).eval()
    actual = with_gradients(layer, q, k, v, upstream=upstream)
    for ours, theirs, wanted in zip(actual, reference, exact, strict=True):
        assert ours.dtype == dtype
        far = (theirs.double() - wanted).abs().max() + torch.finfo(dtype).eps * wanted.abs().max()
        assert (ours.double() - wanted).abs().max() <= 2 * far


def test_autocast_changes_nothing():
    q, k, v, _ = inputs(30, torch.float32)
    layer = build("net").float()
    wanted = layer(q, k, v)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(q, k, v), wanted)


@forms
@pytest.mark.parametrize(("batch", "n"), [(B, 0), (0, 5), (0, 0)])
def test_nothing_gives_nothing(form, batch, n):
    q, k, v, upstream = inputs(n, batch=batch)
    out, *gradients = with_gradients(run(build(form), form), q, k, v, upstream=upstream)
    assert out.shape == upstream.shape
    assert not any(x.any() for x in (out, *gradients))
    assert FORMS[form].get("sort_cut") or build(form).prefill(q, k, v)[1].length == n


@forms
@pytest.mark.parametrize("wanted", ["q", "k", "v", "qv", "kv"])
def test_only_some_inputs_want_gradients(form, wanted):
    n = 14
    q, k, v, upstream = inputs(n)
    layer = build(form)
    every = with_gradients(run(layer, form), q, k, v, upstream=upstream)[1:]
    named = {"q": q, "k": k, "v": v}
    for name in wanted:
        named[name].requires_grad_()
    run(layer, form)(q, k, v).backward(upstream)
    for name, gradient in zip("qkv", every, strict=True):
        assert torch.equal(named[name].grad, gradient) if name in wanted else named[name].grad is None


@forms
def test_views_work_like_contiguous_tensors(form):
    q, k, v, upstream = inputs(14)
    layer = build(form)
    wanted = with_gradients(run(layer, form), q, k, v, upstream=upstream)
    views = [x.transpose(1, 2).contiguous().transpose(1, 2).mT.contiguous().mT for x in (q, k, v)]
    leaves = [x.requires_grad_() for x in views]
    out = run(layer, form)(*leaves)
    assert_same((out.detach(), *torch.autograd.grad(out, leaves, upstream.mT.contiguous().mT)), wanted)


def test_a_layer_of_the_net_is_built_saved_and_moved_like_any_module():
    spec = MECHANISMS["sinkhorn"](block=8, scores="linear", max_length=60)
    assert spec.build(H, D).net.shape == (H, 2 * D, 8)
    with torch.device("meta"):
        assert spec.build(H, D).net.is_meta
    assert spec.build(H, D).bfloat16().net.dtype == torch.bfloat16
    assert list(spec.build(H, D).state_dict()) == ["net"]
    assert not MECHANISMS["sinkhorn"]().build(H, D).state_dict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sinkhorn(block=0)", "block must be a whole number, at least 1, got 0"),
        ("sinkhorn(block=2.5)", "block must be a whole number, at least 1, got 2.5"),
        ("sinkhorn(block=True)", "block must be a whole number"),
        ("sinkhorn(iterations=0)", "iterations must be a whole number, at least 1, got 0"),
        ("sinkhorn(temperature=0)", "temperature must be a number above 0, got 0"),
        ("sinkhorn(temperature='a')", "temperature must be a number above 0, got 'a'"),
        ("sinkhorn(gumbel=-1)", "gumbel must be a number, at least 0, got -1"),
        ("sinkhorn(gumbel=True)", "gumbel must be a number, at least 0, got True"),
        ("sinkhorn(sort_cut=0)", "sort_cut must be a whole number, at least 1, got 0"),
        ("sinkhorn(scores='lineal')", "scores must be one of dot, linear, got 'lineal'.*did you mean 'linear'"),
        ("sinkhorn(max_length=0)", "max_length must be a whole number, at least 1, got 0"),
    ],
)
def test_options_that_make_no_mechanism_are_refused(unchecked, text, message):
    with pytest.raises(ValueError, match=message):
        to_mechanism(text)


def test_what_it_cannot_do_is_refused_with_the_reason(unchecked):
    q, k, v, _ = inputs(14)
    with pytest.raises(ValueError, match=r"causal must be False, as with sort_cut every query sees .* got True"):
        build("cut")(q, k, v, causal=True)
    for method in (lambda x: x.prefill(q, k, v), lambda x: x.initial_state(2), lambda x: x.step(q, k, v, None)):
        with pytest.raises(NotImplementedError, match="does not claim streaming"):
            method(build("cut"))
    short = MECHANISMS["sinkhorn"](scores="linear", max_length=10).build(H, D, G, E).double()
    with pytest.raises(ValueError, match="length must be at most max_length=10, got 14"):
        short(q, k, v)
    _, state = short.prefill(*(x[:, :, :10] for x in (q, k, v)))
    with pytest.raises(ValueError, match="length must be at most max_length=10, got 11"):
        short.step(*(x[:, :, 10:11] for x in (q, k, v)), state)
    with pytest.raises(ValueError, match="as queries and keys are one sequence"):
        build()(q[:, :, :3], k, v)
    with pytest.raises(ValueError, match="q_start must be 0"):
        build()(q, k, v, q_start=2)


@pytest.mark.parametrize("state", [None, ()])
def test_a_state_of_another_kind_is_refused(unchecked, state):
    q, k, v, _ = inputs(1)
    with pytest.raises(TypeError, match="state must be a Sorted from initial_state"):
        build().step(q, k, v, state)
    other = build(block=5).initial_state(B, torch.float64)
    with pytest.raises(ValueError, match=r"state\.sorted_keys must be of shape"):
        build().step(q, k, v, other)


def test_claims_follow_the_options():
    claims = {
        text: to_mechanism(text).claims for text in ("sinkhorn", "sinkhorn(sort_cut=2)", "sinkhorn(scores='linear')")
    }
    plain, cut, net = claims.values()
    assert (plain.causal, plain.streaming, plain.state_size, plain.any_length) == (True, True, "O(n)", True)
    assert (cut.causal, cut.streaming, cut.state_size, cut.any_length) == (False, False, "", True)
    assert (net.causal, net.any_length) == (True, False)
    assert not any(each.cross or each.exact or each.unordered for each in claims.values())


@pytest.mark.parametrize(("block", "n", "scale", "causal", "seed"), [(4, 41, 12, False, 16), (128, 300, 20, True, 4)])
def test_gradients_stay_finite_where_next_to_nothing_is_sorted_to_a_place(block, n, scale, causal, seed):
    generator = torch.Generator().manual_seed(seed)
    layer = MECHANISMS["sinkhorn"](block=block, gumbel=0).build(heads=8, head_dim=16)
    q, k, v = (scale * torch.randn(1, 8, n, 16, generator=generator) for _ in range(3))
    q.requires_grad_()
    layer(q, k, v, causal=causal).sum().backward()
    assert q.grad.isfinite().all()

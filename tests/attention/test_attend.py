"""`attend` against the oracle: every backend, pattern, length, mask, grouping and dtype."""

import pattern_cases
import pytest
import torch
from attend_cases import (
    BACKENDS,
    MASKS,
    PATTERNS,
    B,
    D,
    G,
    H,
    allowed,
    answer_or_refusal,
    assert_same,
    expected,
    got,
    key_mask,
    random_inputs,
    with_gradients,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from saccade import Local, attend


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PATTERNS)
def test_every_pattern_equals_the_oracle(name, backend):
    case = (PATTERNS[name], 63, 63, 0, H, G, "none")
    assert_same(got(*case, backend), expected(*case))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [1, 2, 250])
@pytest.mark.parametrize("name", ["causal", "window_global", "three", "big_bird"])
def test_every_length_equals_the_oracle(name, n, backend):
    case = (PATTERNS[name], n, n, 0, H, G, "right")
    assert_same(got(*case, backend), expected(*case))


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
@pytest.mark.parametrize("name", ["window_global", "random_window"])
def test_a_thousand_positions_equal_the_oracle(name, backend):
    case = (PATTERNS[name], 1000, 1000, 0, 2, 1, "holes")
    assert_same(got(*case, backend), expected(*case))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("n_q", "n_k", "q_start"), [(1, 63, 62), (17, 41, 24), (41, 17, 0), (13, 29, 3), (5, 3, 40), (70, 150, 75)]
)
@pytest.mark.parametrize("name", ["causal", "last", "blocks", "big_bird_causal"])
def test_other_positions_of_the_queries_equal_the_oracle(name, n_q, n_k, q_start, backend):
    case = (PATTERNS[name], n_q, n_k, q_start, H, G, "none")
    assert_same(got(*case, backend), expected(*case))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mask_kind", MASKS)
@pytest.mark.parametrize("name", ["full", "window_global", "last", "big_bird_heads"])
def test_key_masks_equal_the_oracle(name, mask_kind, backend):
    case = (PATTERNS[name], 71, 71, 0, H, G, mask_kind)
    assert_same(got(*case, backend), expected(*case))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("name", ["full", "window_global", "big_bird_heads"])
def test_grouped_heads_equal_the_oracle(name, groups, backend):
    case = (PATTERNS[name], 37, 37, 0, H, groups, "right")
    assert_same(got(*case, backend), expected(*case))


@settings(max_examples=40)
@given(
    pattern_cases.patterns,
    st.integers(0, 70),
    st.integers(0, 70),
    st.integers(0, 70),
    st.sampled_from([(1, 1), (3, 1), (4, 2)]),
    st.sampled_from(MASKS),
)
def test_any_call_equals_the_oracle_in_every_backend(case, n_q, n_k, q_start, grouping, mask_kind):
    arguments = (case.pattern, n_q, n_k, q_start, *grouping, mask_kind)
    wanted = expected.__wrapped__(*arguments)
    for backend in BACKENDS:
        assert_same(got(*arguments, backend), wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["full", "window_global", "big_bird", "three"])
def test_single_precision_is_right_to_a_hundred_thousandth(name, backend):
    case = (PATTERNS[name], 130, 130, 0, H, G, "right")
    actual = got(*case, backend, dtype=torch.float32)
    assert all(tensor.dtype == torch.float32 for tensor in actual)
    assert_same(actual, expected(*case, dtype=torch.float32), 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["full", "window_global", "big_bird", "causal"])
def test_low_precision_errs_at_most_twice_as_much_as_plain_code_in_that_precision(name, dtype, backend):
    n = 130
    pattern = PATTERNS[name]
    q, k, v, upstream = random_inputs(n, n, dtype=dtype)
    mask = key_mask("right", B, n)
    seen = allowed(pattern, n, n, 0, H, mask)

    def plain(q, k, v):
        k, v = k.repeat_interleave(H // G, 1), v.repeat_interleave(H // G, 1)
        scores = (q @ k.mT) * D**-0.5
        return scores.masked_fill(~seen, torch.finfo(dtype).min).softmax(-1) @ v

    exact = expected(pattern, n, n, 0, H, G, "right", dtype=dtype)
    simple = with_gradients(plain, q, k, v, upstream=upstream)
    ours = got(pattern, n, n, 0, H, G, "right", backend, dtype=dtype)
    for name_, one, other, truth in zip(("out", "dq", "dk", "dv"), ours, simple, exact, strict=True):
        assert one.dtype == dtype
        error, allowed_error = ((tensor.double() - truth).abs().max().item() for tensor in (one, other))
        assert error <= 2 * allowed_error, f"{name_}: {error:.2e} against {allowed_error:.2e}"


def test_half_precision_accumulates_in_single():
    """Sums of 4,000 values: fp16 sums would stop growing, fp16 scores of 300 would overflow in exp."""
    n = 4001
    q = torch.full((1, 1, 3, 8), 30.0, dtype=torch.float16)
    k = torch.full((1, 1, n, 8), 30.0, dtype=torch.float16)
    v = torch.ones(1, 1, n, 2, dtype=torch.float16)
    for backend in BACKENDS:
        out = attend(q, k, v, Local(n), backend=backend, scale=1.0)
        assert (out - 1).abs().max() < 1e-3, backend


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_scores_do_not_overflow(backend):
    q, k, v, upstream = random_inputs(23, 23)
    seen = allowed(Local(4), 23, 23, 0, H, None)
    wanted = with_gradients(lambda *qkv: oracles.attention(*qkv, seen), 300 * q, 300 * k, v, upstream=upstream)
    actual = with_gradients(
        lambda *qkv: attend(*qkv, Local(4), backend=backend), 300 * q, 300 * k, v, upstream=upstream
    )
    assert_same(actual, wanted, 1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [0.0, 1.0, -0.3, 2.5])
def test_scale_multiplies_the_scores(scale, backend):
    case = (PATTERNS["window_global"], 37, 37, 0, H, G, "right")
    assert_same(got(*case, backend, scale=scale), expected(*case, scale))


@pytest.mark.parametrize("backend", ["reference", "dense"])
@pytest.mark.parametrize("shape", [(B, H, 29, 31), (1, H, 29, 31), (B, 1, 1, 31), (1, 1, 29, 1), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("name", ["full", "window_global"])
def test_bias_is_added_to_the_scaled_scores(name, shape, backend, generator):
    n_q, n_k = 29, 31
    q, k, v, upstream = random_inputs(n_q, n_k)
    bias = torch.randn(shape, generator=generator, dtype=torch.float64)
    mask = key_mask("right", B, n_k)
    seen = allowed(PATTERNS[name], n_q, n_k, 0, H, mask)
    wanted = with_gradients(
        lambda q, k, v, bias: oracles.attention(q, k, v, seen, 0.7, bias), q, k, v, bias, upstream=upstream
    )
    actual = with_gradients(
        lambda q, k, v, bias: attend(q, k, v, PATTERNS[name], key_mask=mask, scale=0.7, bias=bias, backend=backend),
        *(q, k, v, bias),
        upstream=upstream,
    )
    assert_same(actual[:4], wanted[:4])
    torch.testing.assert_close(actual[4], wanted[4], rtol=0, atol=1e-11)


@pytest.mark.parametrize("backend", ["reference", "dense"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_a_bias_of_another_dtype_works_or_is_refused_by_name(dtype, backend):
    q, k, v, _ = random_inputs(11, 11, dtype=torch.float32)
    bias = torch.linspace(0, 1, 11, dtype=dtype)[None, None, None]
    out = answer_or_refusal(lambda: attend(q, k, v, Local(2), bias=bias, backend=backend))
    if isinstance(out, str):
        assert dtype != q.dtype
        assert out.startswith("bias must be")
        return
    assert out.dtype == q.dtype
    wanted = oracles.attention(*(t.double() for t in (q, k, v)), Local(2).dense(11, 11), bias=bias.double())
    torch.testing.assert_close(out.double(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "dense"])
def test_a_bias_of_minus_infinity_hides_a_key(backend):
    q, k, v, _ = random_inputs(11, 11)
    bias = torch.zeros(1, 1, 11, 11, dtype=torch.float64).masked_fill(~Local(2).dense(11, 11), -torch.inf)
    out = attend(q, k, v, bias=bias, backend=backend)
    torch.testing.assert_close(out, attend(q, k, v, Local(2), backend=backend), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["full", "window_global", "big_bird_heads", "some_empty"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(name, backend):
    n_q, n_k = 7, 11
    q, k, v, _ = random_inputs(n_q, n_k, heads=4, groups=2, batch=1, dim=3, value_dim=2)
    mask = torch.arange(n_k)[None] < 9

    def call(q, k, v):
        return attend(q, k, v, PATTERNS[name], key_mask=mask, q_start=2, backend=backend)

    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]
    assert torch.autograd.gradcheck(call, leaves, fast_mode=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_derivatives_are_right_or_refused(backend):
    q, k, v, upstream = random_inputs(9, 9, heads=2, groups=1, batch=1)
    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]
    seen = allowed(Local(2), 9, 9, 0, 2, None)

    def second(function):
        out = function(*leaves)
        first = torch.autograd.grad(out, leaves, upstream.requires_grad_(), create_graph=True)
        return torch.autograd.grad(sum((gradient**2).sum() for gradient in first), leaves)

    wanted = second(lambda *qkv: oracles.attention(*qkv, seen))
    actual = answer_or_refusal(lambda: second(lambda *qkv: attend(*qkv, Local(2), backend=backend)))
    if isinstance(actual, str):
        assert "differentia" in actual or "derivative" in actual
        return
    for one, other in zip(actual, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wanted", ["q", "k", "v", "qv"])
def test_only_some_inputs_want_gradients(wanted, backend):
    q, k, v, upstream = random_inputs(37, 37)
    named = {"q": q, "k": k, "v": v}
    for name in wanted:
        named[name].requires_grad_()
    attend(q, k, v, PATTERNS["window_global"], backend=backend).backward(upstream)
    all_gradients = expected(PATTERNS["window_global"], 37, 37, 0, H, G, "none")[1:]
    for name, gradient in zip("qkv", all_gradients, strict=True):
        if name in wanted:
            torch.testing.assert_close(named[name].grad, gradient, rtol=0, atol=1e-12)
        else:
            assert named[name].grad is None


@pytest.mark.parametrize("backend", ["reference", "dense"])
def test_a_bias_that_hides_all_keys_gives_zeros(backend):
    q, k, v = (torch.randn(1, 2, 5, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    bias = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    bias[0, 0, 3] = -torch.inf
    out = attend(q, k, v, bias=bias, backend=backend)
    assert (out[:, :, 3] == 0).all()
    out.sum().backward()
    assert torch.isfinite(q.grad).all()
    assert (q.grad[:, :, 3] == 0).all()

"""Efficient attention against the loops over queries and features, and against its recurrence."""

import pytest
import torch
from mechanism_cases import B, G, H, assert_same, build, inputs, with_gradients

import oracles
from oracles_efficient import efficient_attention, efficient_recurrent, efficient_with_all_weights
from saccade.attention import MECHANISMS
from saccade.attention.mechanisms import _feature_map
from saccade.attention.mechanisms._efficient import running

MASKS = {
    "none": None,
    "right": [[True] * 9 + [False] * 4, [True] * 13],
    "left": [[False] * 3 + [True] * 10, [True] * 13],
    "holes": [[True, False] * 6 + [True], [False, True] * 6 + [False]],
    "empty": [[False] * 13, [True] * 13],
}
both_and_causal = pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])


def layer():
    return build(MECHANISMS["efficient"]())


def seen(n_q, n_k, key_mask=None, causal=False, q_start=0):
    found = torch.ones(B, 1, n_q, n_k, dtype=torch.bool)
    found = found if key_mask is None else found & key_mask[:, None, None]
    return found & oracles.dense(oracles.causal(), n_q, n_k, q_start) if causal else found


@pytest.mark.parametrize("mask", MASKS)
@both_and_causal
@pytest.mark.parametrize(("n_q", "q_start"), [(13, 0), (4, 9), (1, 12), (7, 3), (5, 20), (20, 2), (17, 0)], ids=str)
def test_efficient_equals_the_loops(mask, causal, n_q, q_start):
    q, k, v, upstream = inputs(n_q, 13)
    key_mask = None if MASKS[mask] is None else torch.tensor(MASKS[mask])
    allowed = seen(n_q, 13, key_mask, causal, q_start)
    wanted = with_gradients(lambda *qkv: efficient_attention(*qkv, allowed), q, k, v, upstream=upstream)
    actual = with_gradients(
        lambda *qkv: layer()(*qkv, key_mask=key_mask, causal=causal, q_start=q_start), q, k, v, upstream=upstream
    )
    assert_same(actual, wanted)


@pytest.mark.parametrize("n", [1, 2, 31, 63, 64, 65, 127, 128, 129, 250, 300])
def test_the_causal_form_equals_the_recurrence(n):
    q, k, v, upstream = inputs(n, n)
    key_mask = torch.arange(n)[None] % 7 != torch.tensor([[3], [0]])
    wanted = with_gradients(lambda *qkv: efficient_recurrent(*qkv, key_mask), q, k, v, upstream=upstream)
    actual = with_gradients(lambda *qkv: layer()(*qkv, key_mask=key_mask, causal=True), q, k, v, upstream=upstream)
    assert_same(actual, wanted)


def test_the_oracles_agree():
    q, k, v, _ = inputs(19, 19)
    for causal in (False, True):
        wanted = efficient_attention(q, k, v, seen(19, 19, None, causal))
        torch.testing.assert_close(efficient_with_all_weights(q, k, v, causal), wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(efficient_recurrent(q, k, v), wanted, rtol=0, atol=1e-12)


@both_and_causal
@pytest.mark.parametrize("size", [30.0, 300.0, 3000.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float64, 1e-11)], ids=str)
def test_keys_of_any_size(size, causal, dtype, tolerance):
    """Within a chunk the largest key grows by far more than what floats can hold as an exponential.

    Where one key has all the weight its gradient is 0, what is left of products with upstream gradients of some 100.
    """
    n = 150
    q, k, v, upstream = inputs(n, n, dtype)
    k = k * size
    given = [x.double() for x in (q, k, v)]
    wanted = with_gradients(lambda *qkv: efficient_with_all_weights(*qkv, causal), *given, upstream=upstream.double())
    actual = with_gradients(lambda *qkv: layer()(*qkv, causal=causal), q, k, v, upstream=upstream)
    assert all(x.isfinite().all() for x in actual)
    assert_same(actual, wanted, tolerance)


@pytest.mark.parametrize("rising", [1.0, -1.0])
def test_keys_that_rise_or_fall_without_end(rising):
    """Sums sink to nothing, or new keys weigh nothing: no product of factors may become inf times 0."""
    n = 200
    q, k, v, upstream = inputs(n, n, torch.float32)
    k = k + rising * 20 * torch.arange(n)[:, None]
    given = [x.double() for x in (q, k, v)]
    wanted = with_gradients(lambda *qkv: efficient_with_all_weights(*qkv, True), *given, upstream=upstream.double())
    assert_same(with_gradients(lambda *qkv: layer()(*qkv, causal=True), q, k, v, upstream=upstream), wanted, 1e-3)


@pytest.mark.parametrize("factor", [-100.0, 2.0, 5.0, 100.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_later_tokens_leave_every_bit_alone(factor, dtype):
    """Known defect of a peer (reference 2B): the largest key of all in the exponent moves earlier outputs."""
    n = 200
    q, k, v, _ = inputs(n, n, dtype)
    whole = layer()(q, k, v, causal=True)
    for cut in (1, 31, 64, 100, 199):
        later = (torch.arange(n) >= cut)[:, None]
        moved = [torch.where(later, factor * x, x) for x in (q, k, v)]
        assert torch.equal(layer()(*moved, causal=True)[:, :, :cut], whole[:, :, :cut])
        short = layer()(*(x[:, :, :cut] for x in (q, k, v)), causal=True)
        torch.testing.assert_close(short, whole[:, :, :cut], rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("q_start", [1, 64, 100, 299])
def test_the_causal_form_continues_where_it_stopped(q_start):
    q, k, v, _ = inputs(300, 300)
    whole = layer()(q, k, v, causal=True)
    rest = layer()(q[:, :, q_start:], k, v, causal=True, q_start=q_start)
    torch.testing.assert_close(rest, whole[:, :, q_start:], rtol=0, atol=1e-12)


def test_weights_are_means_of_maps_of_attention():
    """With large keys each feature attends to one position, and with a large query one feature is asked."""
    q, k = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 6, 4)
    q[..., 2], k[:, :, 5, 2] = 100, 100
    weights = MECHANISMS["efficient"]().build(1, 4, value_dim=6)(q, k, torch.eye(6)[None, None])
    torch.testing.assert_close(weights[0, 0, 0], torch.eye(6)[5])


def test_with_equal_keys_it_is_the_mean():
    q, _, v, _ = inputs(11, 11)
    k = torch.full((B, G, 11, q.shape[3]), 7.0, dtype=q.dtype)
    means = oracles.repeat_heads(v.cumsum(2) / torch.arange(1, 12)[:, None], H)
    torch.testing.assert_close(layer()(q, k, v, causal=True), means, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer()(q, k, v)[:, :, 0], means[:, :, -1], rtol=0, atol=1e-12)


@both_and_causal
def test_padding_stays_out_of_the_softmax_over_positions(causal):
    n, real = 80, 67
    q, k, v, upstream = inputs(n, n)
    mask = torch.arange(n)[None].expand(B, n) < real
    upstream[:, :, real:] = 0
    padded = with_gradients(lambda *qkv: layer()(*qkv, key_mask=mask, causal=causal), q, 50 * k, v, upstream=upstream)
    parts = [x[:, :, :real] for x in (q, 50 * k, v)]
    alone = with_gradients(lambda *qkv: layer()(*qkv, causal=causal), *parts, upstream=upstream[:, :, :real])
    assert_same([x[:, :, :real] for x in padded], alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@both_and_causal
def test_low_precision_is_single_inside(dtype, causal):
    n = 200
    q, k, v, _ = (x.to(dtype) for x in inputs(n, n))
    with torch.no_grad():
        wanted = efficient_with_all_weights(*(x.double() for x in (q, k, v)), causal)
    found = layer()(q, k, v, causal=causal)
    assert found.dtype == dtype
    assert (found.double() - wanted).abs().max() <= torch.finfo(dtype).eps * wanted.abs().max()


@both_and_causal
@pytest.mark.parametrize("rows", [64, 128, 10**6])
def test_however_the_rows_are_cut_the_result_is_the_same(monkeypatch, causal, rows):
    n = 300
    q, k, v, upstream = inputs(n, n)
    key_mask = torch.arange(n)[None] % 5 != torch.tensor([[3], [4]])

    def run(*qkv):
        return layer()(*qkv, key_mask=key_mask, causal=causal)

    wanted = with_gradients(run, q, k, v, upstream=upstream)
    monkeypatch.setattr(_feature_map, "ROWS", rows)
    assert_same(with_gradients(run, q, k, v, upstream=upstream), wanted)


@pytest.mark.parametrize("chunk", [1, 2, 16, 128])
def test_any_chunk_gives_the_same(monkeypatch, chunk):
    n = 260
    q, k, v, upstream = inputs(n, n)
    wanted = with_gradients(lambda *qkv: layer()(*qkv, causal=True), q, k, v, upstream=upstream)
    monkeypatch.setattr(running, "CHUNK", chunk)
    assert_same(with_gradients(lambda *qkv: layer()(*qkv, causal=True), q, k, v, upstream=upstream), wanted)


@both_and_causal
@pytest.mark.parametrize(("batch", "n_q", "n_k"), [(B, 0, 0), (B, 0, 5), (B, 5, 0), (0, 5, 5)], ids=str)
def test_nothing_gives_nothing(batch, n_q, n_k, causal):
    q, k, v, upstream = inputs(n_q, n_k, batch=batch)
    out, *gradients = with_gradients(lambda *qkv: layer()(*qkv, causal=causal), q, k, v, upstream=upstream)
    assert out.shape == upstream.shape
    assert not any(each.any() for each in (out, *gradients))


@both_and_causal
def test_where_all_keys_are_hidden_there_are_zeros_and_no_gradient(causal):
    q, k, v, upstream = inputs(70, 70)
    hidden = torch.zeros(B, 70, dtype=torch.bool)
    found = with_gradients(lambda *qkv: layer()(*qkv, key_mask=hidden, causal=causal), q, k, v, upstream=upstream)
    assert all(torch.equal(each, torch.zeros_like(each)) for each in found)


@both_and_causal
@pytest.mark.parametrize("wanted", ["q", "k", "v", "kv"])
def test_only_some_inputs_want_gradients(wanted, causal):
    named = dict(zip("qkv", inputs(70, 71), strict=False))
    upstream = inputs(70, 71)[3]

    def run(*qkv):
        return layer()(*qkv, causal=causal, q_start=1)

    every = with_gradients(run, *named.values(), upstream=upstream)[1:]
    for name in wanted:
        named[name].requires_grad_()
    run(*named.values()).backward(upstream)
    for name, gradient in zip("qkv", every, strict=True):
        assert torch.equal(named[name].grad, gradient) if name in wanted else named[name].grad is None


@both_and_causal
def test_gradcheck(causal):
    q, k, v, _ = inputs(5, 7, batch=1)
    mask = torch.arange(7)[None] < 6
    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]
    assert torch.autograd.gradcheck(
        lambda *qkv: layer()(*qkv, key_mask=mask, causal=causal, q_start=1), leaves, fast_mode=True
    )


@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_steps_equal_the_whole_whatever_the_peaks(factor):
    n, cut = 90, 37
    q, k, v, _ = inputs(n, n)
    k = factor * k
    outs, state = [], layer().initial_state(B, q.dtype)
    out, filled = layer().prefill(q[:, :, :cut], k[:, :, :cut], v[:, :, :cut])
    for i in range(n):
        token = [x[:, :, i, None] for x in (q, k, v)]
        outs.append(layer().step(*token, state)[0])
        state = layer().step(*token, state)[1]
        if i + 1 == cut:
            for leaf, wanted in zip(filled, state, strict=True):
                torch.testing.assert_close(leaf, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat(outs, 2), layer()(q, k, v, causal=True), rtol=0, atol=1e-11)
    torch.testing.assert_close(out, layer()(q, k, v, causal=True)[:, :, :cut], rtol=0, atol=1e-12)


def test_a_state_of_other_sizes_is_refused(unchecked):
    q, k, v, _ = inputs(1, 1)
    with pytest.raises(TypeError, match="state must be a Running from initial_state"):
        layer().step(q, k, v, build(MECHANISMS["linear"]()).initial_state(B, q.dtype))
    with pytest.raises(ValueError, match=r"state.peak must be of shape"):
        layer().step(q, k, v, layer().initial_state(B + 1, q.dtype))

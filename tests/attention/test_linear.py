"""Linear attention against the double loop and the recurrence of its paper."""

import pytest
import torch
from mechanism_cases import B, G, H, assert_same, build, inputs, with_gradients

import oracles
from saccade.attention import MECHANISMS
from saccade.attention.mechanisms import _feature_map

LINEAR_MASKS = {
    "none": None,
    "right": [[True] * 9 + [False] * 4, [True] * 13],
    "left": [[False] * 3 + [True] * 10, [True] * 13],
    "holes": [[True, False] * 6 + [True], [False, True] * 6 + [False]],
    "empty": [[False] * 13, [True] * 13],
}


def linear_layer():
    return build(MECHANISMS["linear"]())


@pytest.mark.parametrize("mask", LINEAR_MASKS)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize(("n_q", "q_start"), [(13, 0), (4, 9), (1, 12), (7, 3), (5, 20), (20, 2), (17, 0)], ids=str)
def test_linear_equals_the_double_loop(mask, causal, n_q, q_start):
    n_k = 13
    q, k, v, upstream = inputs(n_q, n_k)
    key_mask = None if LINEAR_MASKS[mask] is None else torch.tensor(LINEAR_MASKS[mask])
    seen = torch.ones(B, 1, 1, n_k, dtype=torch.bool) if key_mask is None else key_mask[:, None, None]
    if causal:
        seen = seen & oracles.dense(oracles.causal(), n_q, n_k, q_start)
    wanted = with_gradients(lambda *qkv: oracles.linear_attention(*qkv, seen), q, k, v, upstream=upstream)
    layer = linear_layer()
    actual = with_gradients(
        lambda *qkv: layer(*qkv, key_mask=key_mask, causal=causal, q_start=q_start), q, k, v, upstream=upstream
    )
    assert_same(actual, wanted)


@pytest.mark.parametrize("n", [1, 2, 63, 127, 128, 129, 250, 300])
def test_causal_linear_equals_the_recurrence(n):
    q, k, v, upstream = inputs(n, n)
    key_mask = torch.arange(n)[None] % 7 != torch.tensor([[3], [8]])
    wanted = with_gradients(lambda *qkv: oracles.linear_attention_recurrent(*qkv, key_mask), q, k, v, upstream=upstream)
    layer = linear_layer()
    actual = with_gradients(lambda *qkv: layer(*qkv, key_mask=key_mask, causal=True), q, k, v, upstream=upstream)
    assert_same(actual, wanted, 1e-11)


@pytest.mark.parametrize("q_start", [1, 100, 128, 200, 299])
def test_causal_linear_continues_where_it_stopped(q_start):
    n = 300
    q, k, v, _ = inputs(n, n)
    whole = linear_layer()(q, k, v, causal=True)
    rest = linear_layer()(q[:, :, q_start:], k, v, causal=True, q_start=q_start)
    torch.testing.assert_close(rest, whole[:, :, q_start:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("offset", [-20.0, -60.0, -200.0, 50.0])
def test_linear_keeps_the_weights_of_far_away_inputs(offset, causal):
    """elu(x) + 1 is exp(x) below zero, not zero: written as `elu(x) + 1` it loses all digits there."""
    n = 11
    q, k, v, upstream = inputs(n, n)
    seen = oracles.dense(oracles.causal() if causal else oracles.full(), n, n)
    wanted = with_gradients(lambda *qkv: oracles.linear_attention(*qkv, seen), q, k + offset, v, upstream=upstream)
    actual = with_gradients(lambda *qkv: linear_layer()(*qkv, causal=causal), q, k + offset, v, upstream=upstream)
    assert_same(actual, wanted, 1e-10)


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_linear_in_single_precision_is_right_to_a_hundred_thousandth(causal):
    n = 250
    q, k, v, upstream = inputs(n, n, torch.float32)
    seen = oracles.dense(oracles.causal() if causal else oracles.full(), n, n)
    doubles = [tensor.double() for tensor in (q, k, v)]

    def plain(q, k, v):
        weights = oracles.elu_plus_one(q) @ oracles.elu_plus_one(k.repeat_interleave(H // G, 1)).mT * seen
        return weights @ v.repeat_interleave(H // G, 1) / weights.sum(-1, keepdim=True)

    wanted = with_gradients(plain, *doubles, upstream=upstream.double())
    actual = with_gradients(lambda *qkv: linear_layer()(*qkv, causal=causal), q, k, v, upstream=upstream)
    assert all(tensor.dtype == torch.float32 for tensor in actual)
    assert_same(actual, wanted, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_linear_sums_are_kept_in_single_precision(dtype, causal):
    """Known defect of a peer (reference 2B): sums of features in fp16 overflow or stop growing."""
    n = 3001
    q, k = (torch.full((1, 1, n, 4), 12.0, dtype=dtype) for _ in range(2))
    v = torch.full((1, 1, n, 2), 9.0, dtype=dtype)
    out = MECHANISMS["linear"]().build(1, 4, value_dim=2)(q, k, v, causal=causal)
    assert out.dtype == dtype
    assert (out - 9).abs().max() < 0.05


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_linear_gradcheck(causal):
    q, k, v, _ = inputs(5, 7, batch=1)
    mask = torch.arange(7)[None] < 6
    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]
    layer = linear_layer()
    assert torch.autograd.gradcheck(
        lambda *qkv: layer(*qkv, key_mask=mask, causal=causal, q_start=1), leaves, fast_mode=True
    )


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_linear_masks_features_and_not_keys(causal):
    """Known defect of a peer (fla #1263): phi(0) = 1, so a zeroed key still weighs in the normaliser."""
    n, real = 20, 12
    q, k, v, _ = inputs(n, n)
    mask = torch.arange(n)[None].expand(B, n) < real
    padded = linear_layer()(q, k, v, key_mask=mask, causal=causal)[:, :, :real]
    alone = linear_layer()(q[:, :, :real], k[:, :, :real], v[:, :, :real], causal=causal)
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("n", [300, 640])
def test_however_the_rows_are_cut_the_result_is_the_same(monkeypatch, causal, n):
    """As for inputs of many thousand rows: several cuts for each head, or several heads in one."""
    q, k, v, upstream = inputs(n, n)
    key_mask = torch.arange(n)[None] % 5 != torch.tensor([[3], [4]])

    def run(*qkv):
        return linear_layer()(*qkv, key_mask=key_mask, causal=causal)

    monkeypatch.setattr(_feature_map, "ROWS", 256)
    many = with_gradients(run, q, k, v, upstream=upstream)
    monkeypatch.setattr(_feature_map, "ROWS", 10**6)
    assert_same(with_gradients(run, q, k, v, upstream=upstream), many, 1e-11)
    if causal:
        wanted = with_gradients(
            lambda *qkv: oracles.linear_attention_recurrent(*qkv, key_mask), q, k, v, upstream=upstream
        )
        assert_same(many, wanted, 1e-11)


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize(("rows", "chunk"), [(64, 64), (128, 32), (5, 5), (2048, 7)], ids=str)
@pytest.mark.parametrize("n", [1, 63, 64, 65, 129])
def test_any_cut_gives_the_same(monkeypatch, n, rows, chunk, causal):
    """Long cuts are whole chunks, as the constants are."""
    q, k, v, upstream = inputs(n, n)
    key_mask = torch.arange(n)[None] % 7 != torch.tensor([[3], [0]])
    seen = oracles.dense(oracles.causal() if causal else oracles.full(), n, n) & key_mask[:, None, None]

    def plain(q, k, v):
        weights = oracles.elu_plus_one(q) @ oracles.elu_plus_one(k.repeat_interleave(H // G, 1)).mT * seen
        total = weights.sum(-1, keepdim=True)
        return weights @ v.repeat_interleave(H // G, 1) / torch.where(total == 0, 1.0, total)

    monkeypatch.setattr(_feature_map, "ROWS", rows)
    monkeypatch.setattr(_feature_map, "CHUNK", chunk)
    actual = with_gradients(
        lambda *qkv: linear_layer()(*qkv, key_mask=key_mask, causal=causal), q, k, v, upstream=upstream
    )
    assert_same(actual, with_gradients(plain, q, k, v, upstream=upstream), 1e-11)


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize(("batch", "n_q", "n_k"), [(B, 0, 0), (B, 0, 5), (B, 5, 0), (0, 5, 5)], ids=str)
def test_nothing_gives_nothing(batch, n_q, n_k, causal):
    q, k, v, upstream = inputs(n_q, n_k, batch=batch)
    out, *gradients = with_gradients(lambda *qkv: linear_layer()(*qkv, causal=causal), q, k, v, upstream=upstream)
    assert out.shape == upstream.shape
    assert not any(each.any() for each in (out, *gradients))


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_where_all_keys_are_hidden_there_are_zeros_and_no_gradient(causal):
    q, k, v, upstream = inputs(70, 70)
    hidden = torch.zeros(B, 70, dtype=torch.bool)
    found = with_gradients(
        lambda *qkv: linear_layer()(*qkv, key_mask=hidden, causal=causal), q, k, v, upstream=upstream
    )
    assert all(torch.equal(each, torch.zeros_like(each)) for each in found)


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("q_start", [0, 1])
@pytest.mark.parametrize("wanted", ["q", "k", "v", "qv", "kv"])
def test_only_some_inputs_want_gradients(wanted, q_start, causal):
    q, k, v, upstream = inputs(70, 71)

    def run(*qkv):
        return linear_layer()(*qkv, causal=causal, q_start=q_start)

    every = with_gradients(run, q, k, v, upstream=upstream)[1:]
    named = {"q": q, "k": k, "v": v}
    for name in wanted:
        named[name].requires_grad_()
    run(q, k, v).backward(upstream)
    for name, gradient in zip("qkv", every, strict=True):
        assert torch.equal(named[name].grad, gradient) if name in wanted else named[name].grad is None


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_views_and_many_short_heads_work_like_contiguous_tensors(causal):
    generator = torch.Generator().manual_seed(1)
    q, k, v, upstream = (torch.randn(70, 3, 40, d, generator=generator, dtype=torch.float64) for d in (5, 5, 7, 7))
    views = [each.mT.contiguous().mT for each in (q, k, v)]
    layer = MECHANISMS["linear"]().build(40, 5, value_dim=7)
    leaves = [view.transpose(1, 2).requires_grad_() for view in views]
    out = layer(*leaves, causal=causal)
    gradients = torch.autograd.grad(out, leaves, upstream.transpose(1, 2))
    seen = oracles.dense(oracles.causal() if causal else oracles.full(), 3, 3)
    turned = [each.transpose(1, 2).contiguous() for each in (q, k, v)]
    wanted = with_gradients(
        lambda *qkv: oracles.linear_attention(*qkv, seen), *turned, upstream=upstream.transpose(1, 2)
    )
    assert_same((out.detach(), *gradients), wanted)

"""Attention to the k keys of highest scores: which they are, what is equal, and what is learned."""

import math

import pytest
import torch
from full_cases import OPTIONS, SCORES, full, layer_of
from mechanism_cases import B, G, H, assert_same, build, inputs, with_gradients

from saccade.attention import MECHANISMS
from saccade.attention.mechanisms._full.weightings import lowest_of_highest


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_top_k_of_all_keys_is_the_softmax(score, causal):
    q, k, v, upstream = inputs(19, 19)
    softmax = build(full(score)).double()
    for count in (19, 20, 500):
        options = OPTIONS.get(score, {})
        top_k = build(MECHANISMS["full"](score, "top_k", top_k=count, **options)).double()
        top_k.load_state_dict(softmax.state_dict())
        runs = (
            with_gradients(lambda *qkv, layer=layer: layer(*qkv, causal=causal), q, k, v, upstream=upstream)
            for layer in (top_k, softmax)
        )
        assert_same(*runs)


@pytest.mark.parametrize("n", [10, 64, 100, 333, 1024])
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_the_lowest_of_the_highest_is_that_of_a_sorted_row(n, count, generator):
    scores = torch.randn(3, 5, n, generator=generator, dtype=torch.float64)
    scores[0, 0, : n // 2] = -math.inf
    ranked = scores.sort(-1, descending=True).values
    right = ranked[..., count - 1, None] if n > count else torch.full((3, 5, 1), -math.inf, dtype=torch.float64)
    assert torch.equal(lowest_of_highest(scores, count), right)


# What is equal for top_k. Equal keys get scores that differ by their places in a matrix product.


def top_k_layer(score, dim, value_dim, dtype, count=4):
    return MECHANISMS["full"](score, "top_k", top_k=count).build(1, dim, value_dim=value_dim).to(dtype)


def kept_by(layer, q, k, **options):
    """Which keys have a weight."""
    return layer(q, k, torch.eye(k.shape[2], dtype=q.dtype)[None, None], **options)[0, 0] > 0


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dim", [3, 64, 128])
def test_equal_keys_share_equally_in_every_form(score, dtype, dim):
    """Whole, causal and in steps, forward and backward, however many they are and wherever they stand."""
    n = 41
    layer, near = top_k_layer(score, dim, 2, dtype), {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 1e-12}
    q, v = torch.randn(1, 1, n, dim, dtype=dtype), torch.randn(1, 1, n, 2, dtype=dtype, requires_grad=True)
    k = torch.randn(1, 1, 1, dim, dtype=dtype).repeat(1, 1, n, 1)
    share = torch.ones(n, n, dtype=dtype).tril() / torch.arange(1, n + 1, dtype=dtype)[:, None]
    for out, weights in ((layer(q, k, v), torch.full_like(share, 1 / n)), (layer(q, k, v, causal=True), share)):
        torch.testing.assert_close(out[0, 0], weights @ v[0, 0], **near)
        (grad_v,) = torch.autograd.grad(out.sum(), v)
        torch.testing.assert_close(grad_v[0, 0], weights.sum(0)[:, None].expand(n, 2), **near)
    _, state = layer.prefill(*(x[:, :, :9] for x in (q, k, v)))
    for i in range(9, n):
        step, state = layer.step(*(x[:, :, i : i + 1] for x in (q, k, v)), state)
        torch.testing.assert_close(step[0, 0], share[i : i + 1] @ v[0, 0], **near)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_order_of_repeated_keys_does_not_matter(score, dtype):
    layer = top_k_layer(score, 64, 2, dtype)
    near = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 1e-12}
    for seed in range(5):
        torch.manual_seed(seed)
        tokens, v = torch.randn(8, 64, dtype=dtype), torch.randn(1, 1, 50, 2, dtype=dtype)
        x, order = tokens[torch.randint(8, (50,))][None, None], torch.randperm(50)
        torch.testing.assert_close(layer(x, x[:, :, order], v[:, :, order]), layer(x, x, v), **near)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_keys_of_other_lengths_with_equal_scores_are_equal(dtype, causal):
    """Whole numbers, whose exact products are known: all ties stay, a zero key's among them, and nothing else."""
    n = 200
    q, k = (torch.randint(-3, 4, (1, 1, n, 4)).to(dtype) for _ in "qk")
    scores = (q @ k.mT)[0, 0]
    if causal:
        scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -math.inf)
    right = (scores >= scores.topk(4, -1).values[:, -1:]) & (scores > -math.inf)
    assert torch.equal(kept_by(top_k_layer("scaled_dot", 4, n, dtype), q, k, causal=causal), right)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_is_equal_is_a_matter_of_the_pair_alone(dtype):
    """A key of great length, whose own score is known badly, loosens nothing for the others."""
    q, k = torch.randn(1, 1, 9, 64, dtype=dtype), torch.randn(1, 1, 100, 64, dtype=dtype)
    layer = top_k_layer("scaled_dot", 64, 100, dtype)
    before = kept_by(layer, q, k)
    k[:, :, 50] = -1e6 * q.sum(2)
    found = kept_by(layer, q[:, :, :1], k)
    assert before.sum(-1).tolist() == [4] * 9
    assert found.sum() == 4


@pytest.mark.parametrize("score", SCORES)
def test_scores_a_little_apart_are_not_equal(score):
    """Seldom is one key more kept than by exact numbers: of 300 queries at most 5 in fp32."""
    q, k = torch.randn(1, 1, 300, 64), torch.randn(1, 1, 500, 64)
    single, double = (top_k_layer(score, 64, 500, dtype, 20) for dtype in (torch.float32, torch.float64))
    double.load_state_dict(single.state_dict())
    one, other = kept_by(single, q, k), kept_by(double, q.double(), k.double())
    assert (other.sum(-1) == 20).all()
    assert not (other & ~one).any()
    assert (one != other).any(-1).sum() <= 5


def test_top_k_gives_gradients_to_what_it_keeps_alone():
    q, k, v, upstream = inputs(1, 30)
    _, _, grad_k, grad_v = with_gradients(layer_of("dot", "top_k"), q, k, v, upstream=upstream)
    scores = q @ k.repeat_interleave(H // G, 1).mT
    kept = torch.zeros_like(scores).scatter_(-1, scores.topk(3, -1).indices, 1.0).bool().view(B, G, H // G, 30).any(2)
    assert torch.equal(grad_v.any(-1), kept)
    assert torch.equal(grad_k.any(-1), kept)

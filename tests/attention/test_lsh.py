"""LSH attention against loops written from its paper, its limits, and what published implementations get wrong."""

import math

import pytest
import torch
from lsh_cases import OPTIONS, SMALL, assert_same, build, inputs, masks, meetings
from mechanism_cases import B, D, G, H, with_gradients

import oracles
import oracles_lsh
from saccade.attention.mechanisms._lsh import hashing, sorted_tiles
from saccade.attention.mechanisms.lsh import LshAttention


def compared(layer, n, mask, causal):
    """Output and gradients against the oracle; hidden queries matter to nothing."""
    q, v, upstream = inputs(n)
    real = torch.ones(B, n, dtype=torch.bool) if mask is None else mask
    upstream = upstream * real[:, None, :, None]
    met = meetings(layer.spec, q, real, causal)
    wanted = with_gradients(
        lambda q, v: oracles_lsh.attention(q, v, met, real, layer.spec.unique), q, v, upstream=upstream
    )
    actual = with_gradients(lambda q, v: layer(q, None, v, mask, causal), q, v, upstream=upstream)
    assert_same(actual, wanted)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("mask", ["none", "right", "holes"])
def test_lsh_equals_the_paper_written_as_loops(name, causal, mask):
    n = 29
    compared(build(**OPTIONS[name]), n, masks(n)[mask], causal)


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("n", [1, 2, 4, 5, 8, 9, 31])
@pytest.mark.parametrize("mask", ["none", "left", "empty"])
def test_any_length_and_mask_equals_the_oracle(n, causal, mask):
    """Known defect of two peers: lengths that are no multiple of the chunk are refused."""
    compared(build(), n, masks(n)[mask], causal)


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize(("rows", "scores"), [(1, 1), (100, 64), (10**9, 10**9)], ids=str)
def test_however_the_work_is_cut_the_result_is_the_same(monkeypatch, rows, scores, causal, unique):
    monkeypatch.setattr(sorted_tiles, "ROWS", rows)
    monkeypatch.setattr(sorted_tiles, "SCORES", scores)
    monkeypatch.setattr(hashing, "PRODUCTS", rows)
    n = 27
    compared(build(unique=unique), n, masks(n)["right"], causal)
    compared(build(unique=unique, bucket=11, causal_buckets=2), n, None, causal)


def dense(q, v, seen):
    """Softmax attention with keys of unit length over what is seen."""
    keys = q / q.norm(dim=-1, keepdim=True)
    return oracles.attention(q, keys, v.repeat_interleave(q.shape[1] // v.shape[1], 1), seen)


@pytest.mark.parametrize("rounds", [1, 4])
@pytest.mark.parametrize("n", [1, 2, 50])
def test_one_chunk_is_dense_attention_without_oneself(n, rounds):
    q, v, upstream = inputs(n)
    seen = ~torch.eye(n, dtype=torch.bool) if n > 1 else torch.ones(1, 1, dtype=torch.bool)
    wanted = with_gradients(lambda q, v: dense(q, v, seen), q, v, upstream=upstream)
    layer = build(bucket=50, rounds=rounds)
    assert_same(with_gradients(lambda q, v: layer(q, None, v), q, v, upstream=upstream), wanted)


def test_one_causal_bucket_is_dense_causal_attention_without_oneself():
    n = 50
    q, v, upstream = inputs(n)
    seen = torch.ones(n, n, dtype=torch.bool).tril(-1)
    seen[0, 0] = True
    wanted = with_gradients(lambda q, v: dense(q, v, seen), q, v, upstream=upstream)
    layer = build(bucket=50, causal_buckets=1)
    assert_same(with_gradients(lambda q, v: layer(q, None, v, causal=True), q, v, upstream=upstream), wanted)


@pytest.mark.parametrize("name", ["default", "unique", "one_bucket", "two_digits"])
def test_what_is_later_moves_nothing(name):
    """Known defect of two peers: whom the past sees depends on where future tokens are sorted to."""
    n, cut = 150, 90
    layer, (q, v, _) = build(**OPTIONS[name]), inputs(n)
    changed = [torch.cat([x[:, :, :cut], 5 * torch.randn_like(x[:, :, cut:])], 2) for x in (q, v)]
    out = layer(q, None, v, causal=True)[:, :, :cut]
    for other in (
        layer(changed[0], None, changed[1], causal=True),
        layer(*(x[:, :, :cut] for x in (q, q, v)), None, True),
    ):
        torch.testing.assert_close(other[:, :, :cut], out, rtol=0, atol=1e-13)


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("name", ["default", "both_options", "long_chunk"])
@pytest.mark.parametrize("n", [100, 203])
def test_padding_is_not_seen_and_more_of_it_changes_nothing(n, name, causal):
    """Known defect of peers: padding fills buckets, and the number of buckets follows the padded length."""
    real = 77
    layer, (q, v, _) = build(**OPTIONS[name]), inputs(n)
    mask = torch.arange(n).expand(B, n) < real
    q, v = (torch.where(mask[:, None, :, None], x, torch.nan) for x in (q, v))
    alone = layer(q[:, :, :real], None, v[:, :, :real], causal=causal)
    padded = layer(q, None, v, mask, causal)
    torch.testing.assert_close(padded[:, :, :real], alone, rtol=0, atol=1e-13)
    assert not padded[:, :, real:].any()


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("training", [False, True])
def test_lengths_that_are_no_multiple_work_in_training_and_evaluation_alike(training, causal):
    q, v, upstream = inputs(61)
    layer = build().train(training)
    out = layer(q.requires_grad_(), None, v.requires_grad_(), causal=causal)
    out.backward(upstream)
    assert torch.equal(out, build().train(not training)(q, None, v, causal=causal))
    assert q.grad.isfinite().all()


def test_keys_have_unit_length_and_queries_their_own():
    """Known defect of an old benchmark: keys are not brought to unit length."""
    n = 20
    q, v, _ = inputs(n)
    layer = build(bucket=n)
    longer = q.clone()
    longer[:, :, 7] *= 3
    out, other = layer(q, None, v), layer(longer, None, v)
    rest = torch.arange(n) != 7
    torch.testing.assert_close(other[:, :, rest], out[:, :, rest], rtol=0, atol=1e-14)
    assert (other[:, :, 7] - out[:, :, 7]).abs().max() > 1e-3


def test_scores_are_divided_by_the_root_of_the_dim():
    """Known defect of an old benchmark, which multiplies by it."""
    q = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])[None, None].double()
    identity = torch.eye(3, dtype=torch.float64)[None, None]
    weights = LshAttention(bucket=3, rounds=1).build(1, 4, value_dim=3)(q, None, identity)
    odds = weights[0, 0, 0, 2] / weights[0, 0, 0, 1]
    torch.testing.assert_close(odds.item(), math.exp(2 / math.sqrt(4)))


def test_nobody_sees_himself_among_others():
    """Known defect of an old benchmark. The identity as values gives the weights."""
    n = 63
    q, _, _ = inputs(n)
    identity = torch.eye(n, dtype=torch.float64).expand(B, G, n, n)
    layer = LshAttention(**SMALL).build(H, D, kv_heads=G, value_dim=n)
    for causal in (False, True):
        weights = layer(q, None, identity, causal=causal)
        own = weights.diagonal(dim1=2, dim2=3)
        assert ((own == 0) | (own == 1)).all()
        assert (own[:, :, 0] == 1).all() == causal
    assert not layer(q, None, identity).diagonal(dim1=2, dim2=3).any()


def test_rounds_are_weighed_by_their_sums_and_not_averaged():
    """Known defect of naive versions: a round that finds only far keys would count as much as any other."""
    n = 40
    q, v, _ = inputs(n)
    real = torch.ones(B, n, dtype=torch.bool)
    layer = build(rounds=2)
    met = meetings(layer.spec, q, real, False)
    wanted = oracles_lsh.attention(q, v, met, real)
    torch.testing.assert_close(layer(q, None, v), wanted, rtol=0, atol=1e-12)
    assert ((met == 1).any() and (met == 2).any()).item(), "the case shows keys of one round and of both"
    once = build(rounds=2, unique=True)(q, None, v)
    assert (once - wanted).abs().max() > 1e-3

"""Sinkhorn attention against the loops of its oracle, its limits, and the defects found in other implementations."""

import pytest
import torch
from mechanism_cases import assert_same, with_gradients
from sinkhorn_cases import BLOCK, B, D, E, H, build, forms, inputs, run

import oracles
from oracles_sinkhorn import balanced as balanced_by_division
from oracles_sinkhorn import block_logits, sinkhorn_attention
from saccade.attention import MECHANISMS
from saccade.attention.mechanisms._sinkhorn import sorted_blocks
from saccade.attention.mechanisms._sinkhorn.sorting import balanced, gumbel, pooled


def masks(n):
    holes = torch.rand(B, n, generator=torch.Generator().manual_seed(n)) > 0.4
    return {
        "none": None,
        "right": torch.arange(n) < torch.tensor([[n], [max(1, n // 2)]]),
        "left": torch.arange(n) >= torch.tensor([[0], [n // 2]]),
        "holes": holes,
        "empty": torch.tensor([[False], [True]]).expand(B, n),
    }


def oracle(layer, form, key_mask=None, noise=None):
    spec = layer.spec
    options = {"block": spec.block, "iterations": spec.iterations, "temperature": spec.temperature}
    net = None if layer.net is None else layer.net.detach()
    causal = form.startswith("causal")
    return lambda *qkv: sinkhorn_attention(
        *qkv, **options, real=key_mask, causal=causal, net=net, noise=noise, cut=spec.sort_cut
    )


@forms
@pytest.mark.parametrize(
    ("n", "mask"), [(1, "none"), (3, "holes"), (8, "none"), (18, "none"), *((11, mask) for mask in masks(11))], ids=str
)
def test_it_equals_the_oracle_query_by_query(form, mask, n):
    q, k, v, upstream = inputs(n)
    key_mask, layer = masks(n)[mask], build(form)
    wanted = with_gradients(oracle(layer, form, key_mask), q, k, v, upstream=upstream)
    assert_same(with_gradients(run(layer, form, key_mask), q, k, v, upstream=upstream), wanted)


@forms
@pytest.mark.parametrize("mask", ["none", "holes"])
def test_with_noise_it_is_the_oracle_with_the_same_noise(form, mask):
    n = 11
    q, k, v, upstream = inputs(n)
    key_mask, layer = masks(n)[mask], build(form, gumbel=0.7).train()
    state = torch.get_rng_state()
    actual = with_gradients(run(layer, form, key_mask), q, k, v, upstream=upstream)
    torch.set_rng_state(state)
    noise = 0.7 * gumbel(q.new_zeros(B, H, 3, 3))
    assert_same(actual, with_gradients(oracle(layer, form, key_mask, noise), q, k, v, upstream=upstream))


@pytest.mark.parametrize("form", ["net", "causal_net"])
def test_the_net_learns_through_the_balancing(form):
    n = 14
    q, k, v, upstream = inputs(n, batch=B)
    layer = build(form)
    run(layer, form)(q, k, v).backward(upstream)
    net = layer.net.detach().clone().requires_grad_()
    out = sinkhorn_attention(
        q, k, v, block=BLOCK, iterations=5, temperature=0.8, causal=form != "net", net=net[:, :, :4]
    )
    (wanted,) = torch.autograd.grad(out, net, upstream)
    torch.testing.assert_close(layer.net.grad, wanted, rtol=0, atol=1e-10)
    assert wanted[:, :, :3].abs().min() > 0


@forms
def test_however_the_queries_are_cut_the_result_is_the_same(monkeypatch, form):
    """As for inputs of many thousand rows: pieces of one head, or several heads at once."""
    n = 22
    q, k, v, upstream = inputs(n)
    key_mask, layer = masks(n)["holes"], build(form)
    found = []
    for rows in (1, 3, 8, 24, 10**6):
        monkeypatch.setattr(sorted_blocks, "ROWS", rows)
        found.append(with_gradients(run(layer, form, key_mask), q, k, v, upstream=upstream))
    for other in found[1:]:
        assert_same(other, found[0])


@pytest.mark.parametrize("sort_cut", [None, 1])
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("mask", ["none", "right", "holes"])
def test_one_block_is_dense_attention(mask, causal, sort_cut):
    if causal and sort_cut:
        return
    n = 14
    q, k, v, upstream = inputs(n)
    key_mask = masks(n)[mask]
    real = torch.ones(B, n, dtype=torch.bool) if key_mask is None else key_mask
    seen = real[:, None, None] & oracles.dense(oracles.causal() if causal else oracles.full(), n, n)
    upstream = torch.where(real[:, None, :, None], upstream, 0.0)
    layer = build(block=20, sort_cut=sort_cut)
    wanted = with_gradients(lambda *qkv: oracles.attention(*qkv, seen), q, k, v, upstream=upstream)
    actual = with_gradients(lambda *qkv: layer(*qkv, key_mask=key_mask, causal=causal), q, k, v, upstream=upstream)
    real = real[:, None, :, None]
    assert_same((actual[0] * real, *actual[1:]), (wanted[0] * real, *wanted[1:]))


def test_enough_turns_make_rows_and_columns_sum_to_one():
    """Known defect of a peer (Long Range Arena's code): a plain softmax in place of the balancing."""
    logits = 2 * torch.randn(B, H, 9, 9, dtype=torch.float64)
    live = torch.arange(9) < torch.tensor([[9], [6]])
    seen = (live[:, None] & live[..., None])[:, None]
    order = balanced(logits, seen, 400, False)
    for dim in (2, 3):
        total = order.sum(dim)
        torch.testing.assert_close(total, live[:, None].expand_as(total).double(), rtol=0, atol=1e-9)
    plain = balanced(logits, seen, 1, False)
    assert (plain.sum(2) - 1)[0].abs().max() > 1e-2
    torch.testing.assert_close(plain.sum(3), live[:, None].expand(B, H, 9).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "causal"), [(30.0, False), (300.0, False), (30.0, True)])
def test_the_balancing_is_exact_for_logits_of_any_size(size, causal):
    """In logarithms: quotients of exponentials would be 0 / 0 where logits are far apart, here in single precision."""
    generator = torch.Generator().manual_seed(1)
    logits = size * torch.rand(1, 1, 7, 7, generator=generator, dtype=torch.float64)
    seen = torch.ones(1, 1, 7, 7, dtype=torch.bool).tril(-1 if causal else 7)
    wanted = balanced_by_division(logits[0, 0], [True] * 7, 6, causal)
    actual = balanced(logits.float(), seen, 6, causal)[0, 0]
    assert (actual.double() - wanted).abs().max() < 1e-4
    leaf = logits.float().requires_grad_()
    (gradient,) = torch.autograd.grad(balanced(leaf, seen, 6, causal).square().sum(), leaf)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_the_balancing_has_the_right_gradient(causal):
    logits = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    seen = torch.tensor([True, True, False, True]).expand(1, 1, 4, 4).tril(-1 if causal else 4)
    assert torch.autograd.gradcheck(lambda x: balanced(x, seen, 3, causal), logits)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("scores", ["dot", "linear"])
def test_the_causal_form_does_not_see_the_future(scores, training):
    """Known defect of peers: column sums over all rows tell earlier rows of later ones."""
    n = 29
    q, k, v, _ = inputs(n)
    layer = build(scores=scores, max_length=40).train(training)
    whole = seeded(layer, q, k, v)
    for cut in range(1, n):
        later = torch.arange(n)[:, None] >= cut
        changed = [torch.where(later, 100 * torch.randn_like(x), x) for x in (q, k, v)]
        assert (seeded(layer, *changed) - whole)[:, :, :cut].abs().max() <= 1e-12
        if not training:
            part = layer(*(x[:, :, :cut] for x in (q, k, v)), causal=True)
            torch.testing.assert_close(part, whole[:, :, :cut], rtol=0, atol=1e-12)


def seeded(layer, *qkv):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return layer(*qkv, causal=True)


def test_later_logits_do_not_move_the_causal_order_at_all():
    logits = torch.randn(1, 2, 12, 12, dtype=torch.float64)
    seen = torch.ones(1, 1, 12, 12, dtype=torch.bool).tril(-1)
    whole = balanced(logits, seen, 8, True)
    for i in range(1, 12):
        changed = logits.clone()
        changed[:, :, i:] = 100 * torch.randn(1, 2, 12 - i, 12)
        assert torch.equal(balanced(changed, seen, 8, True)[:, :, :i], whole[:, :, :i])
    assert not whole.triu().any()
    torch.testing.assert_close(whole.sum(3)[:, :, 1:], torch.ones(1, 2, 11, dtype=torch.float64))


def test_alike_logits_give_the_newest_block_what_the_documentation_says():
    seen = torch.ones(1, 1, 32, 32, dtype=torch.bool).tril(-1)
    for turns, share in ((1, 0.28), (8, 0.82)):
        order = balanced(torch.zeros(1, 1, 32, 32, dtype=torch.float64), seen, turns, True)
        assert order[0, 0, -1, -2].item() == pytest.approx(share, abs=0.005)


@forms
@pytest.mark.parametrize("more", [1, 3, 4, 30])
def test_more_padding_changes_nothing(form, more):
    """Known defect of a peer (sinkhorn-transformer): 0.13 of the output moved with the padding."""
    n, lengths = 18, torch.tensor([[18], [7]])
    q, k, v, _ = inputs(n)
    layer = build(form)
    mask = torch.arange(n) < lengths
    short = run(layer, form, mask)(q, k, v)
    longer = [torch.cat([x, torch.full_like(x[:, :, :1], 1e4).expand(-1, -1, more, -1)], 2) for x in (q, k, v)]
    long = run(layer, form, torch.arange(n + more) < lengths)(*longer)[:, :, :n]
    alone = run(layer, form)(*(x[1:, :, :7] for x in (q, k, v)))
    torch.testing.assert_close(long[0], short[0], rtol=0, atol=1e-12)
    for padded in (short, long):
        torch.testing.assert_close(padded[1:, :, :7], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["both", "cut"])
def test_whole_blocks_of_padding_on_the_left_change_nothing_either(form):
    n, empty = 14, 2 * BLOCK
    q, k, v, _ = inputs(n)
    layer = build(form)
    longer = [torch.cat([torch.randn(*x.shape[:2], empty, x.shape[3]).double(), x], 2) for x in (q, k, v)]
    mask = (torch.arange(n + empty) >= empty).expand(B, -1)
    padded = run(layer, form, mask)(*longer)[:, :, empty:]
    torch.testing.assert_close(padded, run(layer, form)(q, k, v), rtol=0, atol=1e-12)


@forms
def test_any_length_works(form):
    """Known defect of peers: an assertion where the length is not a multiple of the block."""
    for n in (1, 2, 63, 64, 65, 81):
        q, k, v, upstream = inputs(n)
        layer = build(form, block=16)
        out, *gradients = with_gradients(run(layer, form), q, k, v, upstream=upstream)
        assert out.shape == (B, H, n, E)
        assert all(x.isfinite().all() for x in (out, *gradients))


def weights_of(q, k, causal=False):
    n = q.shape[2]
    layer = MECHANISMS["sinkhorn"](block=BLOCK).build(H, D, value_dim=n).double().eval()
    return layer(q, k, torch.eye(n, dtype=torch.float64).expand(B, H, n, n), causal=causal)


def test_blocks_are_runs_of_neighbours():
    """Known defect of a peer (Long Range Arena's code): blocks of every n-th position instead of neighbours."""
    n = 4 * BLOCK
    q, k, _, _ = inputs(n, groups=H)
    weights = weights_of(q, 0 * k)  # nothing to choose by: all sorted blocks are the same mean, all keys alike
    own = torch.arange(n)[:, None] // BLOCK == torch.arange(n) // BLOCK
    wanted = (1 / 4 + own.double()) / (2 * BLOCK)
    torch.testing.assert_close(weights, wanted.expand_as(weights), rtol=0, atol=1e-12)


@pytest.mark.parametrize("near", [0, BLOCK])
def test_there_is_one_softmax_over_the_sorted_and_the_own_block(near):
    """Known defect of a peer (Long Range Arena's code): two softmaxes, each normalised by itself, added up."""
    n = 2 * BLOCK
    q, k, _, _ = inputs(n, groups=H)
    k[:, :, near : near + BLOCK] = 30 * q[:, :, -1:]
    weights = weights_of(q, k, causal=True)[:, :, -1]
    torch.testing.assert_close(weights.sum(2), torch.ones(B, H, dtype=torch.float64), rtol=0, atol=1e-12)
    assert weights[:, :, near : near + BLOCK].sum(2).min() > 0.99, "either block may take everything"


def test_the_first_block_has_nothing_but_itself():
    n = 3 * BLOCK
    q, k, v, _ = inputs(n)
    out = build()(q, k, v, causal=True)[:, :, :BLOCK]
    alone = oracles.attention(*(x[:, :, :BLOCK] for x in (q, k, v)), oracles.dense(oracles.causal(), BLOCK, BLOCK))
    torch.testing.assert_close(out, alone, rtol=0, atol=1e-12)


def test_a_later_block_sees_earlier_ones_whole_and_itself_up_to_the_query():
    q, k, _, _ = inputs(16, groups=H)
    assert ((weights_of(q, k, causal=True) > 0) == torch.ones(16, 16, dtype=torch.bool).tril()).all()


def test_sort_cut_shows_every_query_the_same_keys():
    n = 6 * BLOCK
    q, k, v, _ = inputs(n, groups=H)
    q[:, :, 1:BLOCK] = q[:, :, :1]  # the pooled block stays that of four tokens
    for cut in (1, 3, 9):
        layer = MECHANISMS["sinkhorn"](block=BLOCK, sort_cut=cut).build(H, D, value_dim=E).double().eval()
        changed = q.clone()
        order = torch.randperm(BLOCK)
        changed[:, :, -BLOCK:] = q[:, :, -BLOCK:][:, :, order]
        moved = layer(changed, k, v)[:, :, -BLOCK:]
        torch.testing.assert_close(moved, layer(q, k, v)[:, :, -BLOCK:][:, :, order], rtol=0, atol=1e-12)
        weights = layer(q, 0 * k, torch.eye(n, E).double().expand(B, H, n, E))
        torch.testing.assert_close(weights, weights[:, :, :1].expand_as(weights), rtol=0, atol=1e-12)


def test_pooled_blocks_are_sums_over_the_root_of_their_number():
    x = torch.randn(B, H, 3, BLOCK, D, dtype=torch.float64)
    real = torch.tensor([[1.0, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.float64).expand(B, 3, BLOCK)
    x = x * real[:, None, :, :, None]
    torch.testing.assert_close(pooled(x, None), x.sum(3) / 2)
    torch.testing.assert_close(pooled(x, real)[:, :, 1], x[:, :, 1].sum(2) / 2**0.5)
    assert not pooled(x, real)[:, :, 2].any()
    torch.testing.assert_close(pooled(x, real, up_to_first=True)[:, :, 0], x[:, :, 0, 0])
    torch.testing.assert_close(pooled(x, real, up_to_first=True)[:, :, 2], x.sum((2, 3)) / 6**0.5)


def test_scores_of_independent_tokens_are_of_the_size_of_one():
    q, k = (torch.randn(640, D, dtype=torch.float64) for _ in range(2))
    for causal in (False, True):
        logits = block_logits(q, k, torch.ones(640, dtype=torch.bool), 16, causal, None)
        assert 0.8 < logits.std() < 1.25

"""Routing attention against Algorithm 1 of its paper, token by token, and against what goes wrong in its ports."""

import pytest
import torch
from mechanism_cases import B, D, E, G, H, assert_same, inputs, with_gradients
from routing_cases import MASKS, N, causally, routing

import oracles
import oracles_routing as oracle
from saccade.attention import MECHANISMS, after_step
from saccade.attention.mechanisms._routing import clusters as choosing
from saccade.attention.mechanisms._routing import gathered
from saccade.nn import MultiHeadAttention

OPTIONS = {
    "plain": {"clusters": 4},
    "window": {"clusters": 3, "window": 5},
    "wide": {"clusters": 3, "window": 100},
    "narrow": {"clusters": 3, "window": 1},
    "many": {"clusters": 30},
    "one": {"clusters": 1},
    "raw": {"clusters": 4, "scores": "raw"},
}


def wanted(layer, q, k, v, key_mask=None, causal=False):
    spec, formula = layer.spec, oracle.causal_routing if causal else oracle.routing
    k, v = (oracles.repeat_heads(x, H) for x in (q if spec.shared_qk else k, v))
    return formula(q, k, v, layer.centroids.double(), spec.window, key_mask, spec.scores == "raw")


CASES = [*((options, mask) for options in OPTIONS for mask in ("none", "holes")), *(("plain", mask) for mask in MASKS)]


@pytest.mark.parametrize(("options", "mask"), [*dict.fromkeys(CASES), ("window", "right"), ("window", "empty")])
@causally
def test_routing_equals_algorithm_1(options, mask, causal):
    q, k, v, upstream = inputs(N, N)
    layer, key_mask = routing(**OPTIONS[options]), MASKS[mask]
    expected = with_gradients(lambda *x: wanted(layer, *x, key_mask, causal), q, k, v, upstream=upstream)
    found = with_gradients(lambda *x: layer(*x, key_mask, causal), q, k, v, upstream=upstream)
    assert_same(found, expected)


@pytest.mark.parametrize("n", [1, 2, 3, 85])
@causally
def test_any_length_works(n, causal):
    """Known defect of peers (reference 2B): lengths that the clusters do not divide."""
    q, k, v, upstream = inputs(n, n)
    layer = routing(clusters=6)
    expected = with_gradients(lambda *x: wanted(layer, *x, None, causal), q, k, v, upstream=upstream)
    assert_same(with_gradients(lambda *x: layer(*x, causal=causal), q, k, v, upstream=upstream), expected)


@pytest.mark.parametrize("mask", ["none", "holes"])
@causally
def test_shared_queries_and_keys_read_no_keys(mask, causal):
    q, _, v, upstream = inputs(N, N)
    layer = routing(clusters=4, shared_qk=True)
    for k in (None, torch.zeros(3)):
        leaves, others = ([x.clone().requires_grad_() for x in (q, v)] for _ in range(2))
        out = layer(leaves[0], k, leaves[1], MASKS[mask], causal)
        expected = wanted(layer, others[0], None, others[1], MASKS[mask], causal)
        found = torch.autograd.grad(out, leaves, upstream), torch.autograd.grad(expected, others, upstream)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-10)


def test_shared_queries_and_keys_are_named_by_the_spec_and_stream():
    spec = MECHANISMS["routing"](clusters=3, shared_qk=True)
    assert spec.claims.shared_qk
    assert spec.inputs == ("q", "v")
    assert set(MultiHeadAttention(12, 4, spec).projections) == {"q", "v"}
    layer, (q, _, v, _) = spec.build(H, D, G, E), inputs(N, N)
    out, state = layer.prefill(q[:, :, :20], None, v[:, :, :20])
    outs = [out]
    for t in range(20, N):
        out, state = layer.step(q[:, :, t, None], None, v[:, :, t, None], state)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, 2), layer(q, None, v, causal=True), rtol=0, atol=1e-12)
    assert state.keys.shape == (B, H, N, D)


@pytest.mark.parametrize("mask", MASKS)
@causally
def test_one_cluster_is_dense_attention_on_normalised_queries_and_keys(mask, causal):
    q, k, v, _ = inputs(N, N)
    seen = torch.ones(B, N, dtype=torch.bool) if MASKS[mask] is None else MASKS[mask]
    allowed = seen[:, None, None] & seen[:, None, :, None]
    if causal:
        allowed = allowed & oracles.dense(oracles.causal(), N, N)
    dense = oracles.attention(oracle.layer_norm(q), oracle.layer_norm(k), v, allowed)
    found = routing(clusters=1)(q, k, v, MASKS[mask], causal)
    torch.testing.assert_close(found, dense, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("piece", "rows", "tile"), [(50, 1, 7), (400, 400, 64), (10**6, 10**7, 5)], ids=str)
@causally
def test_however_the_work_is_cut_the_result_is_the_same(monkeypatch, piece, rows, tile, causal):
    q, k, v, upstream = inputs(N, N)
    layer, mask = routing(clusters=3), MASKS["right"]
    whole = with_gradients(lambda *x: layer(*x, mask, causal), q, k, v, upstream=upstream)
    for module, name, value in (
        (choosing, "PIECE", piece),
        (choosing, "LEAST", 4),
        (choosing, "TILE", tile),
        (gathered, "ROWS", rows),
    ):
        monkeypatch.setattr(module, name, value)
    assert_same(with_gradients(lambda *x: layer(*x, mask, causal), q, k, v, upstream=upstream), whole)


def test_equal_tokens_are_taken_from_the_first_on():
    """With products that are equal, who is chosen is still one and the same, whatever the length."""
    n = 20
    q, k, v, _ = inputs(n, n)
    q, k = (x[:, :, :1].expand_as(x).clone() for x in (q, k))
    layer = routing(clusters=4)
    for dtype in (torch.float64, torch.float32):
        found = layer(*(x.to(dtype) for x in (q, k, v)))
        assert found[:, :, :5].any(-1).all()
        assert not found[:, :, 5:].any()


@pytest.mark.parametrize("n", [40, 333, 1000])
def test_the_largest_products_are_chosen_whatever_is_hidden(n):
    """Candidates are found by the maxima of groups: here against a plain sort, with equal products among them."""
    m, clusters, generator = 3, 5, torch.Generator().manual_seed(n)
    products = torch.randint(n // 3, (m, clusters, n), generator=generator).double()
    widths = torch.tensor([n // 8, n // 20, 0])
    real = torch.arange(n) % 4 != torch.tensor([[4], [1], [2]])
    found = choosing.chosen(products.clone(), widths, int(widths.max()), real)
    for head in range(m):
        for cluster in range(clusters):
            order = sorted(real[head].nonzero()[:, 0].tolist(), key=lambda i: -float(products[head, cluster, i]))
            expected = sorted(order[: widths[head]])
            assert found[head, cluster].tolist() == expected + [n] * (int(widths.max()) - len(expected))


def test_the_future_reaches_nothing_and_length_neither():
    """Known defect of a peer (reference 2B): clusters chosen over the whole sequence leak, by 0.33."""
    q, k, v, _ = inputs(N, N)
    layer = routing(clusters=4)
    whole = layer(q, k, v, causal=True)
    for cut in (1, 9, 25):
        changed = [torch.cat([x[:, :, :cut], 5 * x[:, :, cut:].flip(2)], 2) for x in (q, k, v)]
        for other in (changed, [x[:, :, :cut] for x in (q, k, v)]):
            found = layer(*other, causal=True)[:, :, :cut]
            torch.testing.assert_close(found, whole[:, :, :cut], rtol=0, atol=1e-12)


def test_padding_reaches_nothing():
    """Known defect of a peer (reference 2B): the tokens of a cluster grow with the padded length, by 0.29."""
    q, k, v, _ = inputs(N, N)
    layer, real = routing(clusters=4), 23
    alone = layer(*(x[:, :, :real] for x in (q, k, v)))
    for more in (1, 5, N - real):
        padded = [x[:, :, : real + more] for x in (q, k, v)]
        mask = torch.arange(real + more)[None].expand(B, -1) < real
        torch.testing.assert_close(layer(*padded, mask)[:, :, :real], alone, rtol=0, atol=1e-12)


def test_causal_order_is_that_of_positions_not_of_ranks():
    """Known defect of a peer (reference 5): a triangle over ranks is right only where queries are keys."""
    n = 40
    q, k, _, _ = inputs(n, n)
    identity = torch.eye(n, dtype=torch.float64).expand(B, G, n, n)
    weights = MECHANISMS["routing"](clusters=4).build(H, D, G, n)(q, k, identity, causal=True)
    assert not weights.triu(1).any()
    assert (weights.diagonal(dim1=-2, dim2=-1) > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, H, n, dtype=torch.float64), rtol=0, atol=1e-12)


def test_tokens_in_no_cluster_get_zeros_and_in_several_the_mean():
    n = 48
    q, k, _, _ = inputs(n, n)
    identity = torch.eye(n, dtype=torch.float64).expand(B, G, n, n)
    total = MECHANISMS["routing"](clusters=8).build(H, D, G, n)(q, k, identity).sum(-1)
    somewhere = total != 0
    assert 0.3 < somewhere.double().mean() < 0.9
    torch.testing.assert_close(total[somewhere], torch.ones_like(total[somewhere]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@causally
def test_low_precision_loses_no_more_than_its_inputs_and_output(dtype, causal):
    q, k, v, upstream = inputs(250, 250, dtype)
    layer = routing(clusters=6)
    wide = [x.double() for x in (q, k, v)]
    expected = with_gradients(lambda *x: layer(*x, causal=causal), *wide, upstream=upstream.double())
    found = with_gradients(lambda *x: layer(*x, causal=causal), q, k, v, upstream=upstream)
    assert all(x.dtype == dtype for x in found)
    assert_same(found, expected, 2 * torch.finfo(dtype).eps)


@causally
def test_autocast_changes_nothing(causal):
    q, k, v, _ = inputs(N, N, torch.float32)
    layer = routing(clusters=4)
    expected = layer(q, k, v, causal=causal)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(q, k, v, causal=causal), expected)


@causally
@pytest.mark.parametrize(("batch", "n"), [(B, 0), (0, 5), (0, 0)], ids=str)
def test_nothing_gives_nothing(batch, n, causal):
    q, k, v, upstream = inputs(n, n, batch=batch)
    layer = routing(clusters=4)
    out, *_ = with_gradients(lambda *x: layer(*x, causal=causal), q, k, v, upstream=upstream)
    assert out.shape == upstream.shape
    after_step(layer)
    assert layer.centroids.isfinite().all()


@causally
def test_gradcheck(causal):
    q, k, v, _ = inputs(9, 9, batch=1)
    layer = routing(clusters=2)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    assert torch.autograd.gradcheck(lambda *x: layer(*x, causal=causal), leaves, fast_mode=True)


def test_which_of_equal_tokens_are_chosen_does_not_depend_on_padding():
    n, spare = 41, (0, 0, 0, 23)
    mask = torch.arange(n + 23)[None] < n
    for seed in range(120):
        generator = torch.Generator().manual_seed(seed)
        layer = MECHANISMS["routing"](clusters=8, seed=seed).build(heads=2, head_dim=6, value_dim=3).double().eval()
        x = torch.randn(1, 2, 1, 6, generator=generator, dtype=torch.float64).expand(-1, -1, n, -1)
        v = torch.randn(1, 2, n, 3, generator=generator, dtype=torch.float64)
        wide, values = (torch.nn.functional.pad(each, spare, value=7.0) for each in (x, v))
        torch.testing.assert_close(layer(wide, wide, values, mask)[:, :, :n], layer(x, x, v))

"""Full attention with other scores and weights, against the formulas of their papers, one pair at a time."""

import math

import pytest
import torch
from full_cases import SCORES, WEIGHTS, full, layer_of
from mechanism_cases import B, D, E, G, H, assert_same, build, inputs, with_gradients

import oracles
import oracles_scores
from saccade import Full, attend
from saccade.attention import MECHANISMS
from saccade.attention.mechanisms import _query_chunks
from saccade.attention.mechanisms._full import pair_scores, scored_chunks

MASKS = {
    "none": None,
    "right": torch.arange(7) < torch.tensor([[5], [7]]),
    "holes": torch.arange(7) % 3 != torch.tensor([[1], [0]]),
    "empty": torch.tensor([[False], [True]]).expand(2, 7),
}


def wanted_scores(layer, name, q, k, head):
    score, key_head = getattr(layer, "score", None), head // (H // G)
    if name == "additive":
        return oracles_scores.additive(q, k, score.query_weight[head], score.key_weight[key_head], score.weight[head])
    if name == "cosine":
        return oracles_scores.cosine(q, k, (-score.log_scale[head]).exp())
    return getattr(oracles_scores, name)(q, k)


def wanted(layer, score, weights, q, k, v, seen):
    rows = []
    for b in range(q.shape[0]):
        heads = []
        for h in range(H):
            scores = wanted_scores(layer, score, q[b, h], k[b, h // (H // G)], h)
            count = (3,) if weights == "top_k" else ()
            heads.append(getattr(oracles_scores, weights)(scores, seen[b], *count) @ v[b, h // (H // G)])
        rows.append(torch.stack(heads))
    return torch.stack(rows)


def seen_by(n_q, n_k, key_mask, causal, q_start):
    seen = torch.ones(B, n_q, n_k, dtype=torch.bool) if key_mask is None else key_mask[:, None].expand(B, n_q, n_k)
    return seen & oracles.dense(oracles.causal(), n_q, n_k, q_start) if causal else seen


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize(
    ("n_q", "q_start", "mask"),
    [(7, 0, "holes"), (3, 4, "right"), (9, 0, "empty"), (1, 6, "none")],
    ids=str,
)
def test_every_score_with_every_weighting_equals_the_papers(score, weights, causal, n_q, q_start, mask):
    q, k, v, upstream = inputs(n_q, 7)
    layer, seen = layer_of(score, weights), seen_by(n_q, 7, MASKS[mask], causal, q_start)
    parameters = list(layer.parameters())
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = layer(*leaves, MASKS[mask], causal, q_start)
    right = wanted(layer, score, weights, *leaves, seen)
    found = torch.autograd.grad(out, leaves, upstream, retain_graph=True)
    assert_same(
        (out.detach(), *found), (right.detach(), *torch.autograd.grad(right, leaves, upstream, retain_graph=True))
    )
    if parameters:
        pairs = zip(
            torch.autograd.grad(out, parameters, upstream),
            torch.autograd.grad(right, parameters, upstream),
            strict=True,
        )
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("score", ["dot", "additive"])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize(("pairs", "keys"), [(1, 1), (90, 2), (700, 5), (10**6, 256)], ids=str)
def test_any_cut_gives_the_same(monkeypatch, score, weights, causal, pairs, keys):
    n = 11
    q, k, v, upstream = inputs(n, n)
    key_mask = torch.arange(n) % 5 != torch.tensor([[1], [2]])
    layer = layer_of(score, weights)

    def run(*qkv):
        return layer(*qkv, key_mask=key_mask, causal=causal)

    whole = with_gradients(run, q, k, v, upstream=upstream)
    monkeypatch.setattr(_query_chunks, "PAIRS", {"cpu": pairs})
    monkeypatch.setattr(_query_chunks, "CAUSAL_ROWS", 3 + pairs % 7)
    monkeypatch.setattr(pair_scores, "SOME_KEYS", keys)
    assert_same(with_gradients(run, q, k, v, upstream=upstream), whole)


def test_relu_counts_the_keys_that_a_query_sees():
    n = 6
    q, v = torch.ones(1, 1, n, 1, dtype=torch.float64), torch.ones(1, 1, n, 1, dtype=torch.float64)
    key_mask = torch.tensor([[True, False, True, True, True, False]])
    k = torch.tensor([2.0, 9, 4, -6, 8, 9], dtype=torch.float64)[None, None, :, None]
    layer = full("dot", "relu").build(1, 1)
    assert layer(q, k, v, key_mask, causal=True).flatten().tolist() == [2, 2, 3, 2, 3.5, 3.5]
    assert layer(q, k, v, key_mask).flatten().tolist() == [3.5] * n


def test_dot_and_fixed_cosine_are_attend_with_a_scale():
    q, k, v, _ = inputs(15, 15)
    assert torch.equal(layer_of("dot", "softmax")(q, k, v), attend(q, k, v, Full(), scale=1.0))
    fixed = build(MECHANISMS["full"]("cosine", temperature=0.25, learn_temperature=False)).double()
    unit = [x / x.norm(dim=-1, keepdim=True) for x in (q, k)]
    assert not list(fixed.parameters())
    torch.testing.assert_close(fixed(q, k, v), attend(*unit, v, Full(), scale=4.0), rtol=0, atol=1e-12)


def test_a_cosine_knows_no_length_and_a_zero_vector_no_direction():
    q, k, v, upstream = inputs(9, 9)
    layer = layer_of("cosine", "softmax")
    torch.testing.assert_close(layer(7 * q, k / 3, v), layer(q, k, v), rtol=0, atol=1e-12)
    q[:, :, 0] = 0
    out, *gradients = with_gradients(layer, q, k, v, upstream=upstream)
    torch.testing.assert_close(out[:, :, 0], v.mean(2).repeat_interleave(H // G, 1), rtol=0, atol=1e-12)
    assert all(each.isfinite().all() for each in gradients)
    k[:, :, 3] = 0
    assert all(each.isfinite().all() for each in with_gradients(layer, q, k, v, upstream=upstream))


def test_a_learned_temperature_stays_above_a_hundredth():
    layer = layer_of("cosine", "softmax")
    q, k, v, _ = inputs(9, 9)
    with torch.no_grad():
        layer.score.log_scale.fill_(math.log(100))
        coldest = layer(q, k, v)
        layer.score.log_scale.fill_(9.0)
    torch.testing.assert_close(layer(q, k, v), coldest, rtol=0, atol=1e-12)


def test_large_sums_under_the_tanh_saturate():
    layer = layer_of("additive", "softmax")
    q, k, v, upstream = inputs(9, 9)
    seen = seen_by(9, 9, None, False, 0)
    right = wanted(layer, "additive", "softmax", 1e4 * q, -1e4 * k, v, seen)
    found = with_gradients(layer, 1e4 * q, -1e4 * k, v, upstream=upstream)
    torch.testing.assert_close(found[0], right.detach(), rtol=0, atol=1e-11)
    assert all(each.isfinite().all() for each in found)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_low_precision_is_at_most_twice_as_far_off_as_a_plain_version(score, weights, dtype, causal):
    n = 12
    q, k, v, _ = (x.to(dtype) for x in inputs(n, n))
    layer, seen = layer_of(score, weights), seen_by(n, n, None, causal, 0)
    with torch.no_grad():
        exact = layer(q.double(), k.double(), v.double(), causal=causal)
        plain = torch.nn.Module.to(layer, dtype)
        right = wanted(plain, score, weights, q, k, v, seen)
        found = plain(q, k, v, causal=causal)
    assert found.dtype == dtype
    if weights == "top_k":  # which keys are kept may turn on a rounding
        assert (found - exact).abs().median() <= 2 * (right - exact).abs().median() + 1e-3
    else:
        assert (found - exact).abs().max() <= 2 * (right - exact).abs().max() + 1e-3


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(("batch", "n_q", "n_k"), [(B, 0, 0), (B, 0, 5), (B, 5, 0), (0, 5, 5)], ids=str)
def test_nothing_gives_nothing(score, weights, batch, n_q, n_k):
    q, k, v, upstream = inputs(n_q, n_k, batch=batch)
    for causal in (False, True):
        layer = layer_of(score, weights)
        out, *gradients = with_gradients(
            lambda *qkv, layer=layer, causal=causal: layer(*qkv, causal=causal), q, k, v, upstream=upstream
        )
        assert out.shape == upstream.shape
        assert not any(each.any() for each in (out, *gradients))


def test_claims_say_what_holds():
    assert full().claims.exact
    assert full("dot").claims.normalised
    for score in SCORES:
        for weights in WEIGHTS:
            claims = full(score, weights).claims
            assert claims.exact == (score == "scaled_dot" and weights == "softmax")
            assert claims.normalised == (weights != "relu")
            assert claims.unordered
            assert claims.state_size == "O(n)"


def test_no_array_of_all_pairs_is_made(monkeypatch):
    """Peak of what torch allocates, in numbers: far below n * n, for the additive score too."""
    n = 2000
    largest = []
    plain = scored_chunks.Workspace.take
    monkeypatch.setattr(
        scored_chunks.Workspace,
        "take",
        lambda work, name, *shape: largest.append(math.prod(shape)) or plain(work, name, *shape),
    )
    monkeypatch.setattr(_query_chunks, "PAIRS", {"cpu": 2**15})
    q, k, v = (torch.randn(1, 1, n, 2, requires_grad=True) for _ in range(3))
    for score in ("dot", "additive"):
        MECHANISMS["full"](score, "relu").build(1, 2)(q, k, v).sum().backward()
    assert max(largest) <= 2**15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"score": "cosin"},
            r"score must be one of additive, cosine, dot, scaled_dot, got 'cosin' .*did you mean 'cosine'",
        ),
        ({"weights": "topk"}, r"weights must be one of relu, softmax, top_k, got 'topk' \(did you mean 'top_k'"),
        ({"weights": "top_k", "top_k": 0}, "top_k must be a whole number, at least 1, got 0"),
        ({"weights": "top_k", "top_k": 2.5}, "top_k must be a whole number, at least 1, got 2.5"),
        ({"score": "additive", "hidden": 0}, "hidden must be a whole number, at least 1, got 0"),
        ({"score": "additive", "hidden": True}, "hidden must be a whole number, at least 1, got True"),
        ({"score": "cosine", "temperature": 0}, "temperature must be a number, at least 0.01, got 0"),
        ({"score": "cosine", "temperature": math.inf}, "temperature must be a number, at least 0.01, got inf"),
        ({"score": "cosine", "learn_temperature": 1}, "learn_temperature must be True or False, got 1"),
        ({"top_k": 8}, "top_k must be left out, as only 'top_k' reads it, got 8"),
        ({"hidden": 8}, "hidden must be left out, as only 'additive' reads it, got 8"),
        ({"temperature": 1.0}, "temperature must be left out, as only 'cosine' reads it, got 1.0"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        MECHANISMS["full"](**options)


def test_the_baseline_is_what_it_was():
    layer = MECHANISMS["full"]().build(H, D, G, E)
    assert type(layer).__name__ == "PatternLayer"
    assert repr(MECHANISMS["full"]()) == "full"
    assert not list(layer.parameters())

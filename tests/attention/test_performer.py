"""Performer against pairs written out and the recurrence of its paper; extremes, leaks and padding."""

import pytest
import torch
from mechanism_cases import B, D, E, G, H, assert_same, build, inputs, with_gradients
from streaming_cases import decode

import oracles
import oracles_performer as oracle
from saccade.attention import MECHANISMS
from saccade.attention.mechanisms import _feature_map, _scaled_sums

MASKS = {
    "none": None,
    "right": [[True] * 9 + [False] * 4, [True] * 13],
    "left": [[False] * 3 + [True] * 10, [True] * 13],
    "holes": [[True, False] * 6 + [True], [False, True] * 6 + [False]],
    "empty": [[False] * 13, [True] * 13],
}
causally = pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])


def performer(**options):
    return build(MECHANISMS["performer"](**{"features": 12, **options})).double()


def expected(layer, q, k, v, seen):
    directions = oracles.repeat_heads(layer.directions.double()[None], H)[0]
    return oracle.performer(q, oracles.repeat_heads(k, H), oracles.repeat_heads(v, H), directions, seen)


def seen_pairs(key_mask, causal, n_q, n_k, q_start=0):
    seen = torch.ones(B, 1, n_q, n_k, dtype=torch.bool) if key_mask is None else key_mask[:, None, None]
    return seen & oracles.dense(oracles.causal(), n_q, n_k, q_start) if causal else seen


@pytest.mark.parametrize("mask", MASKS)
@causally
@pytest.mark.parametrize(("n_q", "q_start"), [(13, 0), (4, 9), (1, 12), (7, 3), (5, 20), (17, 0)], ids=str)
def test_performer_equals_all_pairs_written_out(mask, causal, n_q, q_start):
    q, k, v, upstream = inputs(n_q, 13)
    key_mask = None if MASKS[mask] is None else torch.tensor(MASKS[mask])
    seen, layer = seen_pairs(key_mask, causal, n_q, 13, q_start), performer()
    wanted = with_gradients(lambda *qkv: expected(layer, *qkv, seen), q, k, v, upstream=upstream)
    actual = with_gradients(
        lambda *qkv: layer(*qkv, key_mask=key_mask, causal=causal, q_start=q_start), q, k, v, upstream=upstream
    )
    assert_same(actual, wanted)


@pytest.mark.parametrize("n", [1, 2, 63, 65, 129, 200])
@pytest.mark.parametrize("mask", ["none", "holes"])
def test_causal_performer_equals_the_recurrence(n, mask):
    q, k, v, upstream = inputs(n, n)
    key_mask = torch.arange(n)[None] % 7 != torch.tensor([[0], [4]]) if mask == "holes" else None
    layer = performer()
    directions = oracles.repeat_heads(layer.directions[None], H)[0]

    def recurrent(q, k, v):
        return oracle.performer_recurrent(
            q, oracles.repeat_heads(k, H), oracles.repeat_heads(v, H), directions, key_mask
        )

    actual = with_gradients(lambda *qkv: layer(*qkv, key_mask=key_mask, causal=True), q, k, v, upstream=upstream)
    assert_same(actual, with_gradients(recurrent, q, k, v, upstream=upstream))


@causally
@pytest.mark.parametrize(("rows", "chunk"), [(64, 64), (128, 32), (5, 5), (2048, 7)], ids=str)
@pytest.mark.parametrize("n", [1, 65, 129])
def test_any_cut_gives_the_same(monkeypatch, n, rows, chunk, causal):
    """Long cuts are whole chunks, as the constants are. Keys grow, so that the maximum moves from cut to cut."""
    q, k, v, upstream = inputs(n, n)
    k = k * torch.linspace(0, 2, n, dtype=k.dtype)[:, None]
    key_mask, layer = torch.arange(n)[None] % 7 != torch.tensor([[3], [0]]), performer()

    def run(*qkv):
        return layer(*qkv, key_mask=key_mask, causal=causal)

    whole = with_gradients(run, q, k, v, upstream=upstream)
    monkeypatch.setattr(_feature_map, "ROWS", rows)
    for module in (_feature_map, _scaled_sums):
        monkeypatch.setattr(module, "CHUNK", chunk)
    assert_same(with_gradients(run, q, k, v, upstream=upstream), whole)


@pytest.mark.parametrize("q_start", [1, 64, 100, 199])
def test_causal_performer_continues_where_it_stopped(q_start):
    n = 200
    q, k, v, _ = inputs(n, n)
    layer = performer()
    rest = layer(q[:, :, q_start:], k, v, causal=True, q_start=q_start)
    torch.testing.assert_close(rest, layer(q, k, v, causal=True)[:, :, q_start:], rtol=0, atol=1e-12)


@causally
def test_gradients_are_those_of_finite_differences_though_maxima_count_as_constants(causal):
    q, k, v, _ = inputs(5, 7, batch=1)
    mask, layer = torch.arange(7)[None] < 6, performer()
    leaves = [2 * tensor.requires_grad_() for tensor in (q, k, v)]
    assert torch.autograd.gradcheck(
        lambda *qkv: layer(*qkv, key_mask=mask, causal=causal, q_start=1), leaves, fast_mode=True
    )


@causally
def test_single_precision_is_right_to_a_ten_thousandth(causal):
    n = 150
    q, k, v, upstream = inputs(n, n, torch.float32)
    layer = performer().float()
    doubles = [tensor.double() for tensor in (q, k, v)]
    run = [lambda *qkv, own=own: own(*qkv, causal=causal) for own in (layer, performer())]
    actual = with_gradients(run[0], q, k, v, upstream=upstream)
    layer.double()
    wanted = with_gradients(lambda *qkv: layer(*qkv, causal=causal), *doubles, upstream=upstream.double())
    assert all(tensor.dtype == torch.float32 for tensor in actual)
    assert_same(actual, wanted, 1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@causally
def test_low_precision_is_computed_in_single(dtype, causal):
    q, k, v, _ = inputs(70, 70, dtype)
    layer = performer().float()
    wanted = layer(*(tensor.float() for tensor in (q, k, v)), causal=causal)
    assert torch.equal(layer(q, k, v, causal=causal), wanted.to(dtype))


EXTREMES = {
    "long": lambda x: 100 * x / x.norm(dim=-1, keepdim=True),
    "one_long": lambda x: torch.where(torch.arange(x.shape[2])[:, None] == x.shape[2] // 2, 100.0, 1.0) * x,
    "growing": lambda x: x * torch.arange(x.shape[2])[:, None],
    "shrinking": lambda x: x * torch.arange(x.shape[2]).flip(0)[:, None],
    "huge": lambda x: 1e12 * x,
    "squares_overflow": lambda x: 1e25 * x,
    "tiny": lambda x: 1e-30 * x,
}


@pytest.mark.parametrize("case", EXTREMES)
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@causally
@pytest.mark.parametrize("features", [1, 32])
def test_inputs_of_any_length_give_finite_numbers(case, masked, causal, features):
    n = 150
    q, k, v, upstream = inputs(n, n, torch.float32)
    q, k = EXTREMES[case](q), EXTREMES[case](k)
    key_mask = torch.arange(n)[None] % 5 != torch.tensor([[0], [3]]) if masked else None
    layer = performer(features=features).float()
    found = with_gradients(lambda *qkv: layer(*qkv, key_mask, causal), q, k, v, upstream=upstream)
    assert all(each.isfinite().all() for each in found)
    assert (found[0].abs() <= 1.001 * v.abs().max()).all()


@causally
def test_long_inputs_in_double_are_right_where_exponents_alone_overflow(causal):
    n = 40
    q, k, v, upstream = inputs(n, n)
    q, k, layer = 15 * q, 15 * k, performer()
    wanted = with_gradients(
        lambda *qkv: expected(layer, *qkv, seen_pairs(None, causal, n, n)), q, k, v, upstream=upstream
    )
    actual = with_gradients(lambda *qkv: layer(*qkv, causal=causal), q, k, v, upstream=upstream)
    assert (oracle.exponents(k, layer.directions) < -300).any()
    assert_same(actual, wanted, 1e-9)


@pytest.mark.parametrize("single", [False, True], ids=["double", "single"])
@pytest.mark.parametrize("factor", [2.0, 5.0, 30.0])
def test_later_activations_move_no_earlier_output(single, factor):
    """Known defect of a peer (reference 2B): a maximum over all keys, with a constant added to features."""
    n, cut = 150, 90
    q, k, v, _ = (x.float() if single else x for x in inputs(n, n))
    layer = performer().float() if single else performer()
    before = layer(q, k, v, causal=True)
    for x in (q, k, v):
        x[:, :, cut:] *= factor
    assert torch.equal(layer(q, k, v, causal=True)[:, :, :cut], before[:, :, :cut])
    torch.testing.assert_close(
        layer(q[:, :, :cut], k[:, :, :cut], v[:, :, :cut], causal=True),
        before[:, :, :cut],
        rtol=0,
        atol=1e-6 if single else 1e-12,
    )


@causally
def test_padding_changes_nothing_whatever_it_holds_and_however_much(causal):
    """Known defect of a peer (reference 2B): it masks values alone, so padded keys count in the maximum and the sum."""
    n, real = 30, 20
    q, k, v, _ = inputs(n, n)
    mask, layer = torch.arange(n)[None].expand(B, n) < real, performer()
    alone = layer(q[:, :, :real], k[:, :, :real], v[:, :, :real], causal=causal)
    for scale in (1, 0, 100, torch.nan):
        k[:, :, real:] *= scale
        v[:, :, real:] *= scale
        padded = layer(q, k, v, key_mask=mask, causal=causal)[:, :, :real]
        torch.testing.assert_close(padded, alone, rtol=0, atol=1e-12)


@causally
@pytest.mark.parametrize(("batch", "n_q", "n_k"), [(B, 0, 0), (B, 0, 5), (B, 5, 0), (0, 5, 5)], ids=str)
def test_nothing_gives_nothing(batch, n_q, n_k, causal):
    q, k, v, upstream = inputs(n_q, n_k, batch=batch)
    out, *gradients = with_gradients(lambda *qkv: performer()(*qkv, causal=causal), q, k, v, upstream=upstream)
    assert out.shape == upstream.shape
    assert not any(each.any() for each in (out, *gradients))


@causally
def test_where_all_keys_are_hidden_there_are_zeros_and_no_gradient(causal):
    q, k, v, upstream = inputs(70, 70)
    hidden, layer = torch.zeros(B, 70, dtype=torch.bool), performer()
    found = with_gradients(lambda *qkv: layer(*qkv, key_mask=hidden, causal=causal), q, k, v, upstream=upstream)
    assert all(torch.equal(each, torch.zeros_like(each)) for each in found)


def test_one_direction_and_equal_queries_give_the_mean_of_values():
    """With queries and keys of zero every feature is 1."""
    q, k, v, _ = inputs(9, 9)
    out = performer()(0 * q, 0 * k, v)
    torch.testing.assert_close(out, oracles.repeat_heads(v.mean(2, keepdim=True), H).expand_as(out))


def test_steps_of_any_size_stay_finite_and_equal_the_whole():
    n = 300
    q, k, v, _ = inputs(n, n)
    k, layer = k * torch.linspace(0, 12, n, dtype=k.dtype)[:, None], performer()
    out, state = decode(layer, q, k, v)
    torch.testing.assert_close(out, layer(q, k, v, causal=True), rtol=0, atol=1e-9)
    single = performer().float()
    with torch.no_grad():
        for size in (1.0, 100.0, 1e-3, 1e10, 1e25, 1.0):
            token = [(x[:, :, :1] * size).float() for x in (q, k, v)]
            out, state = single.step(*token, single.initial_state(B) if size == 1 else state)
            assert all(x.isfinite().all() for x in (out, *state))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 0}, "features must be a whole number, at least 1, got 0"),
        ({"redraw": -1}, "redraw must be a whole number, at least 0, got -1"),
        ({"seed": 0.5}, "seed must be a whole number, at least 0, got 0.5"),
        ({"norms": "root"}, "norms must be one of chi, sqrt_d, got 'root'"),
    ],
)
def test_options_that_make_no_features_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        MECHANISMS["performer"](**options)


@pytest.mark.parametrize(("name", "shape"), [("q", (B, H, 5, D + 1)), ("k", (B, 1, 5, D)), ("v", (B, G, 5, E + 1))])
def test_inputs_of_other_sizes_than_the_layer_are_refused(unchecked, name, shape):
    given = dict(zip("qkv", inputs(5, 5)[:3], strict=True)) | {name: torch.randn(shape, dtype=torch.float64)}
    if name == "q":
        given["k"] = torch.randn(B, G, 5, D + 1, dtype=torch.float64)
    if name == "k":
        given["v"] = given["v"][:, :1]
    with pytest.raises(ValueError, match=rf"{name} must be of \d heads of \d numbers, for which the layer was built"):
        performer()(**given)

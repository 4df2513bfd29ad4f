"""Linformer against the sums of its paper; sharing; what it refuses; and what others get wrong."""

import copy
import pickle

import pytest
import torch
from low_rank_cases import all_gradients, assert_all_same, each_head, layer_of, mask_of, run
from mechanism_cases import B, D, E, G, H, build, inputs

import oracles
from oracles_low_rank import linformer
from saccade.attention import MECHANISMS, to_mechanism
from saccade.attention.mechanisms.linformer import SHARINGS
from saccade.attention.weights import implied_weights
from saccade.checking import check
from saccade.nn import Encoder, MultiHeadAttention

SMALL = "linformer(rank=4, max_length=40)"
sharings = pytest.mark.parametrize("sharing", SHARINGS)


def shared(sharing, rank=4, max_length=40, **options):
    return layer_of(f"linformer(rank={rank}, max_length={max_length}, sharing='{sharing}')", **options)


@sharings
@pytest.mark.parametrize("mask", ["none", "right", "left", "holes", "empty"])
@pytest.mark.parametrize("n_q", [13, 1, 20])
def test_it_equals_the_sums_of_the_paper(sharing, mask, n_q):
    q, k, v, upstream = inputs(n_q, 13)
    layer, key_mask = shared(sharing, max_length=13 if n_q == 13 else 40), mask_of(mask)
    parameters = dict(layer.named_parameters())

    def plain(q, k, v, named):
        e = each_head(named["E"])
        return linformer(q, k, v, e, each_head(named["F"]) if "F" in named else e, key_mask)

    wanted = all_gradients(plain, (q, k, v), parameters, upstream)
    actual = all_gradients(lambda *x: run(layer, *x, key_mask=key_mask), (q, k, v), parameters, upstream)
    assert_all_same(actual, wanted)


@sharings
def test_each_sharing_has_the_matrices_of_the_paper(sharing):
    layer = shared(sharing)
    shapes = {name: tuple(matrix.shape) for name, matrix in layer.named_parameters()}
    one, each = (1, 4, 40), (G, 4, 40)
    assert (
        shapes
        == {
            "none": {"E": each, "F": each},
            "headwise": {"E": one, "F": one},
            "key_value": {"E": one},
            "layerwise": {"E": one},
        }[sharing]
    )
    e, f = layer.matrices()
    assert (e is f) == (sharing in ("key_value", "layerwise"))


def test_it_begins_with_draws_whose_variance_is_one_over_the_rank():
    layer = MECHANISMS["linformer"](rank=64, max_length=500).build(2, 4)
    for matrix in layer.matrices():
        assert matrix.mean().abs() < 0.003
        assert matrix.var().item() == pytest.approx(1 / 64, rel=0.03)


@pytest.mark.parametrize("mask", ["none", "holes"])
def test_with_the_identity_as_projections_it_is_dense_attention(mask):
    q, k, v, upstream = inputs(13, 13)
    layer = shared("key_value", rank=13, max_length=13)
    with torch.no_grad():
        layer.E.copy_(torch.eye(13))
    # What is hidden keeps a row: its key and value are zero, which is what masking before projecting means.
    key_mask = mask_of(mask)
    real = torch.ones(B, 1, 13, 1, dtype=torch.bool) if key_mask is None else key_mask[:, None, :, None]
    everything = oracles.dense(oracles.full(), 13, 13)
    wanted = all_gradients(
        lambda q, k, v, _: oracles.attention(q, k * real, v * real, everything), (q, k, v), {}, upstream
    )
    actual = all_gradients(lambda q, k, v, _: layer(q, k, v, key_mask), (q, k, v), {}, upstream)
    assert_all_same(actual, wanted)


def test_shorter_inputs_read_the_first_columns():
    q, k, v, upstream = inputs(11, 11)
    layer = shared("none")
    out = layer(q, k, v)
    out.backward(upstream)
    assert layer.E.grad[:, :, :11].all()
    assert not layer.E.grad[:, :, 11:].any()
    assert not layer.F.grad[:, :, 11:].any()
    with torch.no_grad():
        layer.E[:, :, 11:] = torch.nan
    assert torch.equal(layer(q, k, v), out)


def test_more_keys_than_max_length_are_refused_by_that_name():
    q, k, v, _ = inputs(5, 41)
    message = (
        r"number of keys of linformer\(max_length=40\) must be at most its max_length \(give a larger .*\), got 41"
    )
    with pytest.raises(ValueError, match=message):
        layer_of(SMALL)(q, k, v)
    q, k, v, _ = inputs(50, 40)
    assert layer_of(SMALL)(q, k, v).isfinite().all()


def test_it_cannot_be_causal_and_says_why():
    q, k, v, _ = inputs(9, 9)
    reason = "causal must be False, as each projected key of linformer mixes all positions"
    assert not to_mechanism(SMALL).claims.causal
    with pytest.raises(ValueError, match=reason):
        layer_of(SMALL)(q, k, v, causal=True)
    with pytest.raises(ValueError, match=reason):
        to_mechanism(SMALL).cost(9, 9, 6, 8, causal=True)
    with pytest.raises(ValueError, match="does not claim causality"):
        MultiHeadAttention(8, 2, SMALL)(torch.randn(1, 9, 8), causal=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be a whole number, at least 1, got 0"),
        ({"rank": True}, "rank must be a whole number, at least 1, got True"),
        ({"rank": 2.5}, "rank must be a whole number, at least 1, got 2.5"),
        ({"max_length": -3}, "max_length must be a whole number, at least 1, got -3"),
        ({"sharing": "headwize"}, r"sharing must be one of .*, got 'headwize' \(did you mean 'headwise'\?\)"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        MECHANISMS["linformer"](**options)


def test_the_mask_is_not_ignored():
    """Known defect of a peer (reference 2B): it takes a padding mask and never reads it."""
    q, k, v, _ = inputs(13, 13)
    layer, key_mask = layer_of(SMALL), mask_of("right")
    masked = layer(q, k, v, key_mask)
    assert not torch.allclose(masked[0], layer(q, k, v)[0])
    torch.testing.assert_close(masked[:1], layer(q[:1], k[:1, :, :9], v[:1, :, :9]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["k", "v"])
def test_what_is_hidden_is_hidden_before_it_is_projected(name):
    """Masked behind the projection, each row would hold a share of it; with a bias, it would weigh as zero, too."""
    given = dict(zip("qkv", inputs(13, 13)[:3], strict=True))
    layer, key_mask = layer_of(SMALL), mask_of("left")
    before = layer(**given, key_mask=key_mask)
    for value in (1e6, torch.nan):
        given[name] = given[name].masked_fill(~key_mask[:, None, :, None], value)
        assert torch.equal(layer(**given, key_mask=key_mask), before)


def test_scores_are_scaled_by_the_head_dim():
    """Known defect of a peer: by the width of the model."""
    q, k, v, _ = inputs(13, 13)
    layer = layer_of(SMALL)
    keys, values = (
        matrix[0, :, :13] @ x.repeat_interleave(H // G, 1) for matrix, x in zip(layer.matrices(), (k, v), strict=True)
    )
    wanted = (q @ keys.mT / D**0.5).softmax(-1) @ values
    torch.testing.assert_close(layer(q, k, v), wanted, rtol=0, atol=1e-12)


def test_its_weights_sum_to_those_of_the_rows_and_not_to_one():
    q, k, v, _ = inputs(13, 13)
    layer = layer_of(SMALL)
    weights = implied_weights(layer, {"q": q, "k": k, "v": v})
    torch.testing.assert_close(weights @ v.repeat_interleave(H // G, 1), layer(q, k, v), rtol=0, atol=1e-12)
    assert (weights < 0).any()
    assert not to_mechanism(SMALL).claims.normalised


@pytest.mark.parametrize(("batch", "n_q", "n_k"), [(B, 0, 0), (B, 0, 5), (B, 5, 0), (0, 5, 5)], ids=str)
def test_nothing_gives_nothing(batch, n_q, n_k):
    q, k, v, upstream = inputs(n_q, n_k, batch=batch)
    layer = layer_of(SMALL)
    found = all_gradients(lambda *x: run(layer, *x), (q, k, v), dict(layer.named_parameters()), upstream)
    assert found["out"].shape == upstream.shape
    assert not any(each.any() for each in found.values())


@sharings
def test_where_all_keys_are_hidden_there_are_zeros_and_no_gradient(sharing):
    q, k, v, upstream = inputs(33, 33)
    layer, hidden = shared(sharing), torch.zeros(B, 33, dtype=torch.bool)
    parameters = dict(layer.named_parameters())
    found = all_gradients(lambda *x: run(layer, *x, key_mask=hidden), (q, k, v), parameters, upstream)
    assert not any(each.any() for each in found.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_is_that_of_plain_products(dtype):
    q, k, v, _ = inputs(1500, 1500, dtype)
    layer = build(MECHANISMS["linformer"](rank=32, max_length=2000))
    wanted = copy.deepcopy(layer).double()(q.double(), k.double(), v.double())
    e, f = (matrix[0, :, :1500].to(dtype) for matrix in layer.matrices())
    keys, values = (x.repeat_interleave(H // G, 1) for x in ((e @ k), (f @ v)))
    plain = (q @ keys.mT / D**0.5).softmax(-1) @ values
    out = layer(q, k, v)
    assert out.dtype == dtype
    assert (out.double() - wanted).abs().max() <= 2 * (plain.double() - wanted).abs().max()


def test_autocast_and_other_dtypes_work():
    layer = MultiHeadAttention(24, 4, "linformer(rank=5, max_length=30)", kv_heads=2, value_dim=7)
    x, key_mask = torch.randn(2, 21, 24), torch.arange(21) < torch.tensor([[21], [12]])
    wanted = layer(x, key_mask=key_mask)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x, key_mask=key_mask)
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), wanted, rtol=0, atol=0.1)
    assert layer.layer.E.grad.dtype == torch.float32
    torch.testing.assert_close(layer.double()(x.double(), key_mask=key_mask).float(), wanted, rtol=0, atol=1e-5)


def test_gradcheck():
    q, k, v, _ = inputs(5, 7, batch=1)
    layer, mask = layer_of(SMALL), torch.arange(7)[None] < 6
    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]
    assert torch.autograd.gradcheck(lambda *qkv: layer(*qkv, key_mask=mask), leaves, fast_mode=True)


@pytest.mark.parametrize("sharing", ["none", "layerwise"])
def test_other_sharings_keep_their_claims(sharing):
    spec = MECHANISMS["linformer"](rank=5, max_length=2200, sharing=sharing)
    report = check(spec.build(heads=3, head_dim=5), claims=spec.claims, width=5)
    assert not [(result.probe, result.where) for result in report.failed]


# Sharing between layers.


def encoder(sharing="layerwise", layers=3):
    return Encoder(24, 4, layers, 32, f"linformer(rank=5, max_length=30, sharing='{sharing}')")


def attention_of(model):
    return [layer.attention.layer for layer in model.layers]


def test_layerwise_sharing_is_one_matrix_in_all_layers():
    model = encoder()
    first, *others = attention_of(model)
    assert all(each is first.E for layer in (first, *others) for each in layer.matrices())
    assert [name for name, _ in model.named_parameters() if name.endswith(".E")] == ["layers.0.attention.layer.E"]
    assert [name for name in model.state_dict() if name.endswith((".E", ".F"))] == ["layers.0.attention.layer.E"]
    apart = sum(p.numel() for p in encoder("key_value").parameters())
    assert apart - sum(p.numel() for p in model.parameters()) == 2 * 5 * 30


@pytest.mark.parametrize("sharing", ["none", "headwise", "key_value"])
def test_other_sharings_end_at_the_layer(sharing):
    e = [layer.E for layer in attention_of(encoder(sharing))]
    assert len(set(map(id, e))) == 3


def test_only_layers_of_the_same_spec_share():
    one, other = ("linformer(rank=5, max_length=30, sharing='layerwise')", "linformer(sharing='layerwise')")
    model = Encoder(24, 4, 4, 32, [one, "full", other, one])
    first, _, different, last = attention_of(model)
    assert last.matrices()[0] is first.E
    assert different.matrices()[0] is different.E


def test_the_gradient_of_a_shared_matrix_is_the_sum_over_layers():
    torch.manual_seed(0)
    model, apart = encoder().double(), encoder("key_value").double()
    with torch.no_grad():
        weights = {name: value for name, value in model.state_dict().items() if not name.endswith(".E")}
        assert not apart.load_state_dict(weights, strict=False).unexpected_keys
        for layer in attention_of(apart):
            layer.E.copy_(attention_of(model)[0].E)
    x = torch.randn(2, 30, 24, dtype=torch.float64)
    for each in (model, apart):
        each(x).square().sum().backward()
    torch.testing.assert_close(model(x), apart(x), rtol=0, atol=1e-12)
    total = sum(layer.E.grad for layer in attention_of(apart))
    torch.testing.assert_close(attention_of(model)[0].E.grad, total, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "state_dict", "to", "meta"])
def test_sharing_outlives_copies_and_moves(way):
    model, x = encoder(), torch.randn(2, 21, 24)
    wanted = model(x)
    match way:
        case "deepcopy":
            other = copy.deepcopy(model)
        case "pickle":
            other = pickle.loads(pickle.dumps(model))
        case "state_dict":
            other = encoder()
            other.load_state_dict(model.state_dict())
        case "to":
            other = copy.deepcopy(model).double().float()
        case "meta":
            with torch.device("meta"):
                other = encoder()
            other.to_empty(device="cpu").load_state_dict(model.state_dict())
    first, *others = attention_of(other)
    assert first.E is not attention_of(model)[0].E
    assert all(layer.matrices()[0] is first.E for layer in others)
    assert torch.equal(other(x), wanted)
    with torch.no_grad():
        first.E.zero_()
    assert not torch.allclose(other(x), wanted)
    assert torch.equal(model(x), wanted)


def test_a_layer_shares_with_its_own_spec_only():
    layer = shared("layerwise")
    for other in (shared("layerwise", rank=5), build(MECHANISMS["full"]())):
        with pytest.raises(ValueError, match="first must be a layer of linformer"):
            layer.share_with(other)
    own = shared("headwise")
    own.share_with(shared("headwise", layer=1))
    assert own.matrices()[0] is own.E


def test_a_mechanism_that_shares_nothing_ignores_it():
    layer, first = (build(MECHANISMS["full"]()) for _ in range(2))
    assert layer.share_with(first) is None


def test_its_cost_is_that_of_its_products():
    cost = MECHANISMS["linformer"](rank=16, sharing="none").cost(100, 90, 6, D, value_dim=E, kv_heads=G)
    assert cost.pairs == 6 * 100 * 16
    assert cost.flops == 2 * (cost.pairs + G * 16 * 90) * (D + E)
    assert cost.wasted == 0

from dataclasses import replace

import pytest
import torch

from counting import counted_flops, kept_bytes
from saccade.attention import MECHANISMS
from saccade.bench import model_cost as module
from saccade.bench.model_cost import Dominance, Shape, dominance, layer_cost, model_cost
from saccade.models import ClassifierSettings, SequenceClassifier
from saccade.nn import Encoder, MultiHeadAttention
from saccade.nn.encoder import EncoderLayer

SHAPE = Shape(width=24, heads=3, layers=2, hidden=40)
B = 2


def encoder(mechanism, shape=SHAPE, dropout=0.0):
    sizes = shape.width, shape.heads, shape.layers, shape.hidden
    return Encoder(*sizes, mechanism, shape.norm, dropout, extra_tokens=shape.extra_tokens)


def computed(cost):
    return cost.computed + cost.others


def numbers(model):
    return sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize("mechanism", [*MECHANISMS, "local(left=32)"])
@pytest.mark.parametrize("n", [128, 1024])
def test_an_encoder_costs_what_torch_counts(mechanism, n):
    model, found = encoder(mechanism), model_cost(mechanism, n, SHAPE, batch=B)
    x = torch.randn(B, n, SHAPE.width, requires_grad=True)
    assert computed(found) == counted_flops(lambda: model(x))
    assert found.parameters == numbers(model)
    assert found.attention <= found.computed


@pytest.mark.parametrize("mechanism", ["full", "linear", "local(left=32)"])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_training_keeps_what_autograd_saves(mechanism, norm, dropout):
    shape = replace(SHAPE, norm=norm, dropout=dropout > 0)
    model, found = encoder(mechanism, shape, dropout), model_cost(mechanism, 1024, shape, batch=B)
    x = torch.randn(B, 1024, SHAPE.width, requires_grad=True)
    # The result of the last norm is nobody's to keep, that of the first layer's input is.
    assert found.kept == kept_bytes(lambda: model(x), model.parameters())
    assert found.training_bytes == 16 * numbers(model) + found.kept


@pytest.mark.parametrize("mechanism", ["full", "linear", "local(left=32)", "longformer(window=32)"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_extra_tokens_cost_what_torch_counts(mechanism, norm):
    shape = replace(SHAPE, norm=norm, extra_tokens=5)
    model, found = encoder(mechanism, shape), model_cost(mechanism, 1000, shape, batch=B)
    x = torch.randn(B, 1000, SHAPE.width, requires_grad=True)
    assert computed(found) == counted_flops(lambda: model(x))
    assert found.parameters == numbers(model)
    # What is kept for each query is kept for whole tiles of them.
    over = kept_bytes(lambda: model(x), model.parameters()) - found.kept
    assert 0 <= over <= SHAPE.layers * B * 4 * SHAPE.heads * (-1005 % 64)
    without = model_cost(mechanism, 1000, replace(shape, extra_tokens=0), batch=B)
    assert found.parameters - without.parameters == 5 * 24
    assert found.projections * 1000 == without.projections * 1005


@pytest.mark.parametrize("mechanism", ["full", "linear"])
@pytest.mark.parametrize("causal", [False, True])
def test_a_layer_costs_what_torch_counts(mechanism, causal):
    layer = EncoderLayer(24, 3, 40, mechanism, "pre", 0.0, "gelu", 0)
    found = layer_cost(mechanism, 300, SHAPE, batch=B, causal=causal)
    x = torch.randn(B, 300, 24, requires_grad=True)
    assert computed(found) == counted_flops(lambda: layer(x, causal=causal))
    assert found.parameters == numbers(layer)
    assert found.kept == kept_bytes(lambda: layer(x, causal=causal), layer.parameters())


@pytest.mark.parametrize("mechanism", ["full", "linear"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_with_shared_keys_costs_what_torch_counts(mechanism, kv_heads):
    shape = Shape(width=24, heads=4, layers=1, hidden=1, kv_heads=kv_heads)
    attention, found = MultiHeadAttention(24, 4, mechanism, kv_heads=kv_heads), layer_cost(mechanism, 70, shape)
    x = torch.randn(1, 70, 24, requires_grad=True)
    assert found.computed + found.projections == counted_flops(lambda: attention(x))
    # The layer's further parameters: two norms, and a feed-forward network one wide.
    assert found.parameters - numbers(attention) == 4 * 24 + (24 + 1) + (24 + 24)


@pytest.mark.parametrize("mechanism", ["full", "linear"])
def test_a_classifier_costs_what_torch_counts(mechanism):
    settings = ClassifierSettings(mechanism, width=24, heads=3, layers=2, hidden=40)
    model = SequenceClassifier(17, 5, settings)
    found = model_cost(mechanism, 90, replace(SHAPE, vocabulary=17, classes=5), batch=B)
    tokens = torch.randint(0, 17, (B, 90))
    assert computed(found) == counted_flops(lambda: model(tokens))
    assert found.parameters == numbers(model)
    assert found.rest == 2 * B * 24 * 5


def test_bytes_are_those_of_every_product():
    c, f, n, g = 24, 40, 50, 24 // 3
    found = layer_cost("full", n, replace(SHAPE, kv_heads=1), batch=B)
    moved = [(c, c), (c, g), (c, g), (c, c), (c, f), (f, c)]
    core = 2 * c + 2 * g
    assert found.bytes == 4 * (B * n * (sum(map(sum, moved)) + core) + found.parameters)
    one, four = (model_cost("full", n, replace(SHAPE, layers=layers, classes=5)) for layers in (1, 4))
    assert four.bytes - one.bytes == 3 * layer_cost("full", n, SHAPE).bytes


def test_full_attention_dominates_from_its_closed_form():
    """4 n^2 c operations against (8 c^2 + 4 c f) n."""
    assert dominance("full") == Dominance(2 * 512 + 2048 + 1)
    assert dominance("full", Shape(width=96, heads=2, hidden=50)) == Dominance(2 * 96 + 50 + 1)


@pytest.mark.parametrize("causal", [False, True])
def test_dominance_is_where_the_counted_operations_say(causal):
    shape = Shape(width=24, heads=3, layers=2, hidden=40, classes=7)
    n = dominance("full", shape, causal=causal).length
    assert n is not None
    for length, dominates in ((n, True), (n - 1, False)):
        model = encoder("full", shape)
        x = torch.randn(1, length, 24)
        whole = counted_flops(lambda model=model, x=x: (model(x, causal=causal), x[:, 0] @ torch.zeros(24, 7)))
        products = 2 * 4 * 24 * (length * (length + 1) // 2 if causal else length**2)
        assert (products > whole - products) is dominates


@pytest.mark.parametrize("mechanism", ["linear", "local", "big_bird"])
def test_what_grows_in_proportion_never_dominates_a_wide_model(mechanism):
    assert dominance(mechanism) == Dominance(None, never=True)
    assert dominance(mechanism, causal=True) == Dominance(None, never=True)


def test_a_wide_window_dominates_a_narrow_model():
    shape = Shape(width=24, heads=3, hidden=40)
    n = dominance("local(left=64)", shape).length
    assert n is not None
    found, before = model_cost("local(left=64)", n, shape), model_cost("local(left=64)", n - 1, shape)
    assert found.share > 0.5 >= before.share
    assert 2 * 24 + 40 < n < 4 * (2 * 24 + 40)


def test_what_was_not_found_is_not_called_never(monkeypatch):
    monkeypatch.setattr(module, "LONGEST", 64)
    assert dominance("full", SHAPE) == Dominance(None, never=False)
    assert dominance("full", replace(SHAPE, width=3, hidden=1)) == Dominance(2 * 3 + 1 + 1)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"classes": -1}, "classes must be at least 1, got -1"),
        ({"width": 10, "heads": 3}, "width must be a multiple of the 3 heads, got 10"),
        ({"heads": 8, "kv_heads": 3}, "kv_heads must be a divisor of the 8 heads, got 3"),
        ({"norm": "prae"}, "did you mean 'pre'"),
        ({"extra_tokens": -1}, "extra_tokens must be a whole number, at least 0, got -1"),
        ({"extra_tokens": True}, "extra_tokens must be a whole number, at least 0, got True"),
    ],
)
def test_refuses_shapes(shape, message):
    with pytest.raises(ValueError, match=message):
        Shape(**shape)


def test_refuses(unchecked, monkeypatch):
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        model_cost("full", 8, batch=0)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        model_cost("full", 0)
    with pytest.raises(ValueError, match="did you mean 'local'"):
        dominance("locl")
    claims = replace(MECHANISMS["linear"]().claims, causal=False)
    monkeypatch.setattr(MECHANISMS["linear"], "claims", property(lambda spec: claims))
    with pytest.raises(ValueError, match="causal must be False, as linear does not claim causality, got True"):
        dominance("linear", causal=True)

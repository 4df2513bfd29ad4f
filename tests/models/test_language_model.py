"""The language model: one token at a time equals the whole, with every mechanism; no leak of what comes later."""

import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import linear

from saccade import config
from saccade.attention.record import Record
from saccade.models import LanguageModel, LanguageModelSettings
from saccade.nn import POSITIONS

sys.path.append(str(Path(__file__).parents[1] / "nn"))
from stack_cases import SPECS, STREAMING, shaken

V, N = 11, 15


def model(mechanism="full", **options):
    settings = LanguageModelSettings(str(mechanism), 12, 2, 2, 17, dropout=0.3, max_length=40, **options)
    return shaken(LanguageModel(V, settings))


def tokens(n=N, batch=2):
    return torch.randint(V, (batch, n))


@pytest.mark.parametrize("name", STREAMING)
def test_one_token_at_a_time_equals_the_whole(name):
    ours, x = model(SPECS[name]), tokens()
    whole = ours(x)
    logits, state = ours.start(x[:, :4])
    torch.testing.assert_close(logits, whole[:, 3], rtol=0, atol=1e-10)
    for t in range(4, N):
        logits, state = ours.advance(x[:, t], state)
        torch.testing.assert_close(logits, whole[:, t], rtol=0, atol=1e-10)
    assert state.position == N


@pytest.mark.parametrize("position", POSITIONS)
def test_every_position_decodes(position):
    if position == "flow":
        pytest.importorskip("torchdiffeq")
    assert_decodes(model(position=position))


@pytest.mark.parametrize("mechanism", ["local(left=3)", "sparse(pattern=Local(3) | Global(1))", "linear", "lsh"])
@pytest.mark.parametrize("position", ["rotary", "alibi"])
def test_positions_in_attention_decode_with_other_mechanisms(mechanism, position):
    if position == "rotary" or "l(" in mechanism:
        assert_decodes(model(mechanism, position=position))
    else:
        with pytest.raises(ValueError, match="mechanism must be full, a pattern or another that claims exact"):
            model(mechanism, position=position)


@pytest.mark.parametrize("normalisation", ["layer", "rms"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_every_norm_decodes(norm, normalisation):
    assert_decodes(model(norm=norm, normalisation=normalisation, activation="relu"))


def assert_decodes(ours):
    x = tokens()
    _, state = ours.start(x[:, :1])
    for t in range(1, N):
        logits, state = ours.advance(x[:, t], state)
    torch.testing.assert_close(logits, ours(x)[:, -1], rtol=0, atol=1e-10)


def test_rows_go_on_from_others():
    ours, x, rows = model(), tokens(6, 3), torch.tensor([2, 2, 0, 1])
    logits, _ = ours.advance(x[rows, 5], ours.reorder(ours.start(x[:, :5])[1], rows))
    torch.testing.assert_close(logits, ours(x[rows])[:, 5], rtol=0, atol=1e-12)


def test_later_tokens_and_padding_never_matter():
    ours, x = model(), tokens()
    whole = ours(x)
    torch.testing.assert_close(ours(x[:, :6]), whole[:, :6], rtol=0, atol=1e-12)
    key_mask = torch.arange(N) < torch.tensor([[N], [6]])
    one, other = (ours(x.masked_fill(~key_mask, token), key_mask)[key_mask] for token in (3, 7))
    assert torch.equal(one, other)
    torch.testing.assert_close(ours(x, key_mask)[key_mask], whole[key_mask], rtol=0, atol=1e-12)


def test_the_table_goes_in_scaled_and_is_the_output():
    ours, x = model(), tokens()
    torch.testing.assert_close(ours.embedding(x), ours.embedding.weight[x] * 12**0.5)
    hidden = ours.encoder(ours.position.on_input(ours.embedding(x)), causal=True)
    torch.testing.assert_close(ours(x), linear(hidden, ours.embedding.weight))
    assert sum(weight.shape[0] == V for weight in ours.parameters()) == 1


def test_dropout_is_on_the_sum_of_embeddings_and_positions():
    ours, x, seen = model().train(), tokens(), []
    ours.dropout.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0]))
    ours(x)
    assert torch.equal(seen[0], ours.position.on_input(ours.embedding(x)))
    assert ours.dropout.p == 0.3


def test_it_looks_both_ways_where_it_is_not_causal():
    ours, x = model("linformer(rank=4, max_length=40)", causal=False), tokens()
    other = x.clone()
    other[:, -1] = (x[:, -1] + 1) % V
    assert not torch.allclose(ours(x)[:, 0], ours(other)[:, 0])
    with pytest.raises(ValueError, match="causal must be true in the settings of a model that writes, got False"):
        ours.start(x)


def test_weights_are_recorded():
    record = Record("weights")
    model()(tokens(), record=record)
    assert [tuple(weights.shape) for weights in record["weights"]] == [(2, 2, N, N)] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"heads": 3}, "width must be a multiple of the 3 heads, got 128"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be at least 0 and below 1, got 1\.0"),
        ({"position": "sinusoid"}, "position must be one of .*did you mean 'sinusoidal'"),
        ({"norm": "per"}, "norm must be one of post, pre, got 'per'"),
        ({"normalisation": "batch"}, "normalisation must be layer or rms where attention is causal"),
        ({"normalisation": "leyer"}, "normalisation must be one of .*did you mean 'layer'"),
        ({"position": "alibi", "mechanism": "linear"}, "mechanism must be full, a pattern .*as ALiBi positions add"),
        ({"activation": "relo"}, "activation must be one of gelu, relu, got 'relo'"),
        ({"mechanism": ("full",)}, "mechanism must be one, or one for each of the 2 layers"),
        ({"mechanism": "ful"}, "mechanism must be one of .*did you mean 'full'"),
        ({"mechanism": "linformer"}, "mechanism must be one that claims causality: its outputs .*, got 'linformer'"),
    ],
)
def test_settings_that_cannot_be_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        LanguageModelSettings(**options)


def test_a_recipe_may_hold_the_settings():
    text = config.dump(LanguageModelSettings(mechanism=("full", "linear")))
    assert "linear" in text


def test_inputs_that_cannot_be_are_refused(unchecked):
    ours = model()
    with pytest.raises(ValueError, match=r"tokens must be of shape \[batch, length\], not empty, got \(2, 0\)"):
        ours.start(tokens(0))
    with pytest.raises(ValueError, match="source must be None: a language model reads prompts only, got 'Tensor'"):
        ours.start(tokens(), tokens())
    with pytest.raises(ValueError, match="vocabulary_size must be a whole number, at least 1, got 0"):
        LanguageModel(0)

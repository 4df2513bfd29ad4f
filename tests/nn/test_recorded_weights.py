"""Weights recorded on the way through an encoder, next to a softmax written out here."""

import math

import pytest
import torch
from torch import nn

from saccade.attention import MECHANISMS
from saccade.attention.record import Record
from saccade.models import ClassifierSettings, SequenceClassifier
from saccade.nn import Encoder, MultiHeadAttention

WIDTH, HEADS, N = 21, 3, 11


def encoder(**options):
    ours = Encoder(WIDTH, HEADS, 2, 31, **options)
    for weight in ours.parameters():
        nn.init.normal_(weight, std=0.5)
    return ours.double().eval()


def softmax_weights(attention, x, allowed):
    """Head by head and query by query, from the projections' own numbers."""
    x = x.detach()
    dim = WIDTH // HEADS
    projections = [attention.projections[name] for name in "qk"]
    q, k = (x @ each.weight.detach().T + each.bias.detach() for each in projections)
    weights = torch.zeros(len(x), HEADS, N, N, dtype=torch.float64)
    for b in range(len(x)):
        for h in range(HEADS):
            columns = slice(h * dim, (h + 1) * dim)
            for i in range(N):
                keys = [j for j in range(N) if allowed[b, i, j]]
                powers = [math.exp(float(q[b, i, columns] @ k[b, j, columns]) / math.sqrt(dim)) for j in keys]
                for j, power in zip(keys, powers, strict=True):
                    weights[b, h, i, j] = power / sum(powers)
    return weights


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("mechanism", "reach"), [("full", N), ("local(left=2)", 2)])
def test_recorded_weights_are_the_softmax_of_each_layer_and_head(norm, causal, mechanism, reach):
    ours = encoder(norm=norm, mechanism=mechanism)
    x = torch.randn(2, N, WIDTH, dtype=torch.float64)
    key_mask = torch.arange(N) < torch.tensor([N, 6])[:, None]
    record = Record("weights")
    out = ours(x, key_mask, causal, record=record)
    assert torch.equal(out, ours(x, key_mask, causal))
    q, k = torch.arange(N)[:, None], torch.arange(N)
    allowed = ((q - k).abs() <= reach) & ((k <= q) | (not causal)) & key_mask[:, None]
    assert len(record["weights"]) == 2
    x = x.masked_fill(~key_mask[..., None], 0)
    for layer, found in zip(ours.layers, record["weights"], strict=True):
        seen = (layer.attention_norm(x) if norm == "pre" else x).masked_fill(~key_mask[..., None], 0)
        torch.testing.assert_close(found, softmax_weights(layer.attention, seen, allowed), rtol=0, atol=1e-10)
        x = layer(x, key_mask, causal)


def test_cross_attention_is_recorded_with_the_start_of_its_queries():
    ours = MultiHeadAttention(WIDTH, HEADS).double()
    x, context = torch.randn(2, 3, WIDTH, dtype=torch.float64), torch.randn(2, N, WIDTH, dtype=torch.float64)
    record = Record("weights")
    ours(x, context, causal=True, q_start=4, record=record)
    (weights,) = record["weights"]
    assert torch.equal(weights[0, 0] > 0, torch.arange(N) <= torch.arange(4, 7)[:, None])


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_any_mechanism_is_recorded_and_without_a_record_nothing_is_done(mechanism):
    ours = encoder(mechanism=mechanism)
    calls = []
    ours.layers[0].attention.layer.register_forward_hook(lambda *given: calls.append(given))
    x = torch.randn(2, N, WIDTH, dtype=torch.float64)
    ours(x)
    assert len(calls) == 1
    record = Record("weights")
    ours(x, record=record)
    assert [tuple(each.shape) for each in record["weights"]] == [(2, HEADS, N, N)] * 2


def test_a_classifier_hands_the_record_down():
    model = SequenceClassifier(17, 5, ClassifierSettings(width=21, heads=3, layers=2, hidden=31)).eval()
    record = Record("weights")
    tokens = torch.randint(17, (1, N))
    assert torch.equal(model(tokens, record=record), model(tokens))
    assert len(record["weights"]) == 2
    torch.testing.assert_close(record["weights"][0].sum(-1), torch.ones(1, 3, N))

"""Encoder, decoder and the whole Transformer, next to torch's own with the same weights: outputs and gradients."""

import pytest
import torch
from stack_cases import shaken
from torch_peers import stack_pairs, torch_decoder, torch_encoder, torch_transformer, transformer_pairs

from saccade.attention.record import Record
from saccade.nn import Decoder, Encoder, Transformer

WIDTH, HEADS, HIDDEN = 21, 3, 31
N, T = 11, 7
norms = pytest.mark.parametrize("norm", ["pre", "post"])
activations = pytest.mark.parametrize("activation", ["gelu", "relu"])
masks = pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])


def tokens(n):
    return torch.randn(2, n, WIDTH, dtype=torch.float64)


def mask(*lengths, n):
    return torch.arange(n) < torch.tensor(lengths)[:, None]


def future(n):
    return torch.ones(n, n, dtype=torch.bool).triu(1)


def hidden(key_mask):
    """torch's masks are inverted: True hides."""
    return None if key_mask is None else ~key_mask


def assert_same(ours, theirs, pairs, out, expected, real):
    """Outputs at real tokens, and what a sum of them says to every weight."""
    torch.testing.assert_close(out[real], expected[real], rtol=0, atol=1e-12)
    upstream = torch.randn_like(out[real])
    for each in (out, expected):
        (each[real] * upstream).sum().backward()
    for mine, other in pairs(ours, theirs):
        torch.testing.assert_close(torch.cat([part.grad for part in mine]), other.grad, rtol=1e-11, atol=1e-11)


@norms
@activations
@masks
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_the_encoder_equals_torch(norm, activation, masked, causal):
    ours = shaken(Encoder(WIDTH, HEADS, 2, HIDDEN, norm=norm, activation=activation, dropout=0.3))
    theirs = torch_encoder(ours, HEADS, HIDDEN, norm, activation)
    x, key_mask = tokens(N), mask(N, 5, n=N) if masked else None
    expected = theirs(x, mask=future(N) if causal else None, src_key_padding_mask=hidden(key_mask))
    real = mask(N, N, n=N) if key_mask is None else key_mask
    assert_same(ours, theirs, stack_pairs, ours(x, key_mask, causal), expected, real)


@norms
@activations
@masks
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_the_decoder_equals_torch(norm, activation, masked, causal):
    ours = shaken(Decoder(WIDTH, HEADS, 2, HIDDEN, norm=norm, activation=activation, dropout=0.3))
    theirs = torch_decoder(ours, HEADS, HIDDEN, norm, activation)
    x, context = tokens(T), tokens(N)
    own, other = (mask(4, T, n=T), mask(N, 5, n=N)) if masked else (None, None)
    expected = theirs(
        x,
        context,
        tgt_mask=future(T) if causal else None,
        tgt_key_padding_mask=hidden(own),
        memory_key_padding_mask=hidden(other),
    )
    real = mask(T, T, n=T) if own is None else own
    assert_same(ours, theirs, stack_pairs, ours(x, context, own, other, causal), expected, real)


@norms
@masks
def test_the_transformer_equals_torch(norm, masked):
    ours = shaken(Transformer(WIDTH, HEADS, 2, 3, HIDDEN, norm=norm, activation="relu", dropout=0.3))
    theirs = torch_transformer(ours, HEADS, HIDDEN, norm, "relu")
    source, target = tokens(N), tokens(T)
    read, written = (mask(N, 5, n=N), mask(4, T, n=T)) if masked else (None, None)
    expected = theirs(
        source,
        target,
        tgt_mask=future(T),
        src_key_padding_mask=hidden(read),
        tgt_key_padding_mask=hidden(written),
        memory_key_padding_mask=hidden(read),
    )
    real = mask(T, T, n=T) if written is None else written
    out = ours(source, target, read, written)
    assert_same(ours, theirs, transformer_pairs, out, expected, real)


def test_what_stands_behind_the_masks_reaches_nothing():
    ours = shaken(Transformer(WIDTH, HEADS, 1, hidden=HIDDEN))
    source, target = tokens(N), tokens(T)
    read, written = mask(N, 5, n=N), mask(4, T, n=T)
    clean = ours(source, target, read, written)
    source, target = (
        x.masked_fill(~real[..., None], float("nan")).requires_grad_()
        for x, real in ((source, read), (target, written))
    )
    out = ours(source, target, read, written)
    assert torch.equal(out[written], clean[written])
    out[written].sum().backward()
    assert all(weight.grad.isfinite().all() for weight in ours.parameters())
    assert not source.grad[~read].any()
    assert not target.grad[~written].any()


def test_a_record_tells_the_parts_apart():
    ours = shaken(Transformer(WIDTH, HEADS, 2, 3, HIDDEN))
    record = Record("weights")
    ours(tokens(N), tokens(T), mask(N, 5, n=N), record=record)
    shapes = {
        ("encoder",): [(2, HEADS, N, N)] * 2,
        ("decoder", "self"): [(2, HEADS, T, T)] * 3,
        ("decoder", "cross"): [(2, HEADS, T, N)] * 3,
    }
    for place, wanted in shapes.items():
        at = record
        for part in place:
            at = at.at(part)
        assert [tuple(weights.shape) for weights in at["weights"]] == wanted
    assert len(record["weights"]) == 2 + 3 + 3
    assert len(record.at("decoder")["weights"]) == 3 + 3
    assert record.at("decoder").at("encoder")["weights"] == []
    own, across = record.at("decoder").at("self")["weights"][2], record.at("decoder").at("cross")["weights"][2]
    assert not own.triu(1).any()
    torch.testing.assert_close(across.sum(-1), torch.ones(2, HEADS, T, dtype=torch.float64))
    assert not across[1, :, :, 5:].any()

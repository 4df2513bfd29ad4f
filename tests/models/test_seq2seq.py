"""Sequence to sequence: the paper's sizes, decoding equal to the whole, padding that never matters."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from saccade.attention.record import Record
from saccade.models import BASE, BIG, Seq2Seq, Seq2SeqSettings, Source

sys.path.append(str(Path(__file__).parents[1] / "nn"))
from stack_cases import CROSS, SPECS, STREAMING, shaken

V, N, T = 11, 13, 9
SMALL = Seq2SeqSettings(width=12, heads=2, hidden=17, dropout=0.3, max_length=40)


def model(**options):
    return shaken(Seq2Seq(V, replace(SMALL, **options)))


def tokens(n, batch=2):
    return torch.randint(V, (batch, n))


def mask(*lengths, n=N):
    return torch.arange(n) < torch.tensor(lengths)[:, None]


def counted(settings, vocabulary_size):
    """All parameters, without the memory for them."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in Seq2Seq(vocabulary_size, settings).parameters())


def by_hand(width, hidden, layers, vocabulary_size):
    """The table once; projections, feed-forward networks and norms with all that they add."""
    attention = 4 * (width * width + width)
    feed_forward = width * hidden + hidden + hidden * width + width
    norm = 2 * width
    encoder = attention + feed_forward + 2 * norm
    decoder = 2 * attention + feed_forward + 3 * norm
    return vocabulary_size * width + layers * (encoder + decoder)


@pytest.mark.parametrize(("settings", "paper"), [(BASE, 65e6), (BIG, 213e6)], ids=["base", "big"])
def test_parameters_are_those_of_the_paper(settings, paper):
    found = counted(settings, 37_000)
    assert found == by_hand(settings.width, settings.hidden, settings.layers, 37_000)
    assert found == pytest.approx(paper, rel=0.03)


@pytest.mark.parametrize(
    ("options", "paper"),
    [
        ({"layers": 2}, 36e6),
        ({"layers": 4}, 50e6),
        ({}, 65e6),
        ({"layers": 8}, 80e6),
        ({"width": 256}, 28e6),
        ({"width": 1024}, 168e6),
        ({"hidden": 1024}, 53e6),
        ({"hidden": 4096}, 90e6),
    ],
)
def test_the_sizes_in_table_3_are_those_of_41_000_rows(options, paper):
    """To the last digit that is printed there."""
    settings = replace(BASE, **options)
    assert round(by_hand(settings.width, settings.hidden, settings.layers, 41_000), -6) == paper


def test_the_paper_has_one_table_for_three():
    ours = model()
    assert sum(V in weight.shape for weight in ours.parameters()) == 1
    assert (BASE.norm, BASE.activation, BASE.dropout, BIG.dropout) == ("post", "relu", 0.1, 0.3)


def assert_decodes(ours):
    source, target, key_mask = tokens(N), tokens(T), mask(N, 5)
    whole = ours(source, target, key_mask)
    logits, state = ours.start(target[:, :3], Source(source, key_mask))
    torch.testing.assert_close(logits, whole[:, 2], rtol=0, atol=1e-10)
    for t in range(3, T):
        logits, state = ours.advance(target[:, t], state)
        torch.testing.assert_close(logits, whole[:, t], rtol=0, atol=1e-10)
    assert state.position == T


def test_a_source_may_have_a_vocabulary_of_its_own(tmp_path):
    ours = shaken(Seq2Seq(V, SMALL, source_vocabulary_size=V + 3))
    assert ours.sizes == {"vocabulary_size": V, "source_vocabulary_size": V + 3}
    source, target = torch.full((2, N), V + 2), tokens(T)
    assert ours(source, target).shape == (2, T, V)
    # Neither side's table matters to the other's ids.
    before = ours(source, target)
    with torch.no_grad():
        ours.source_embedding.weight[: V + 2] += 1
    assert torch.equal(ours(source, target), before)
    ours.save_pretrained(tmp_path)
    assert torch.equal(Seq2Seq.from_pretrained(tmp_path).double()(source, target), before)
    assert_decodes(ours)


@pytest.mark.parametrize("name", STREAMING)
def test_one_token_at_a_time_equals_the_whole(name):
    assert_decodes(model(decoder_mechanism=str(SPECS[name])))


@pytest.mark.parametrize("name", CROSS)
def test_any_mechanism_looks_across(name):
    assert_decodes(model(cross_mechanism=str(SPECS[name])))


@pytest.mark.parametrize(
    "options",
    [
        {"position": "learned"},
        {"position": "alibi"},
        {"position": "rotary", "normalisation": "rms"},
        {"norm": "post", "decoder_layers": 1},
    ],
)
def test_other_shapes_decode(options):
    assert_decodes(model(**options))


def test_source_and_target_have_positions_of_their_own():
    ours = model(position="learned")
    assert not torch.equal(ours.source_position.table, ours.target_position.table)


def test_padding_and_company_never_matter():
    ours = model()
    source, target, key_mask = tokens(N), tokens(T), mask(N, 5)
    whole = ours(source, target, key_mask, mask(T, 4, n=T))
    alone = ours(source[1:, :5], target[1:, :4])
    torch.testing.assert_close(whole[1, :4], alone[0], rtol=0, atol=1e-12)
    first, _ = ours.start(target[:, :1], Source(source, key_mask))
    torch.testing.assert_close(first[1:], ours.start(target[1:, :1], Source(source[1:, :5]))[0], rtol=0, atol=1e-12)


def test_rows_go_on_from_others_with_their_sources():
    ours, rows = model(), torch.tensor([2, 2, 0, 1])
    source, target, key_mask = tokens(N, 3), tokens(T, 3), mask(N, 5, 2)
    _, state = ours.start(target[:, :4], Source(source, key_mask))
    logits, _ = ours.advance(target[rows, 4], ours.reorder(state, rows))
    wanted = ours(source[rows], target[rows, :5], key_mask[rows])[:, 4]
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-12)


def test_dropout_is_on_both_sums_of_embeddings_and_positions():
    ours, seen = model().train(), []
    ours.dropout.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0]))
    source, target = tokens(N), tokens(T)
    ours(source, target)
    for found, ids in zip(seen, (source, target), strict=True):
        assert torch.equal(found, ours.source_position.on_input(ours.embedding(ids)))


def test_weights_are_recorded_where_they_belong():
    record = Record("weights")
    model()(tokens(N), tokens(T), record=record)
    assert [tuple(each.shape) for each in record.at("decoder").at("cross")["weights"]] == [(2, 2, T, N)] * 2
    assert [tuple(each.shape) for each in record.at("encoder")["weights"]] == [(2, 2, N, N)] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_layers": 0}, "decoder_layers must be at least 1, got 0"),
        ({"heads": 5}, "width must be a multiple of the 5 heads, got 12"),
        ({"mechanism": ("full",)}, "mechanism must be one, or one for each of the 2 layers"),
        ({"decoder_mechanism": "linformer"}, "decoder_mechanism must be one that claims causality"),
        ({"decoder_mechanism": ("full",)}, "decoder_mechanism must be one, or one for each of the 2 layers"),
        ({"cross_mechanism": "lsh"}, "cross_mechanism must be one that claims cross attention, got 'lsh'"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **options)


def test_inputs_that_cannot_be_are_refused(unchecked):
    ours = model()
    with pytest.raises(TypeError, match=r"source must be a Source: tokens \[b n\] and their key mask, got 'Tensor'"):
        ours.start(tokens(1), tokens(N))
    with pytest.raises(ValueError, match="source must be of as many rows as the prompts, 1, got 2"):
        ours.start(tokens(1, 1), Source(tokens(N)))
    with pytest.raises(ValueError, match=r"target must be of shape \[batch, length\], not empty, got \(2, 0\)"):
        ours(tokens(N), tokens(0))
    with pytest.raises(ValueError, match=r"source must be of shape \[batch, length\], not empty, got \(2, 0\)"):
        ours(tokens(0), tokens(T))

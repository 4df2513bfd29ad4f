import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from saccade.attention import MECHANISMS, Mechanism
from saccade.models import ClassifierSettings, SequenceClassifier
from saccade.nn import NORMS, POSITIONS
from saccade.nn.pooling import POOLINGS

SMALL = ClassifierSettings(width=21, heads=3, layers=2, hidden=31, max_length=13)


def classifier(**options):
    return SequenceClassifier(17, 5, replace(SMALL, **options)).double().eval()


def tokens(*lengths, n):
    key_mask = torch.arange(n) < torch.tensor(lengths)[:, None]
    return torch.randint(17, key_mask.shape), key_mask


@pytest.mark.parametrize("mechanism", ["full", "local(left=2)", "big_bird", "linear", ("linear", "full")])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("position", ["sinusoidal", "learned", "none"])
def test_neither_the_batch_nor_the_padding_changes_a_score(mechanism, pooling, position):
    model = classifier(mechanism=mechanism, pooling=pooling, position=position)
    x, key_mask = tokens(11, 7, 1, n=11)
    together = model(x, key_mask)
    assert together.shape == (3, 5)
    for row, length in enumerate((11, 7, 1)):
        alone = model(x[row : row + 1, :length])
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-10)
    other = torch.where(key_mask, x, (x + 1) % 17)
    assert torch.equal(model(other, key_mask), together)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_extra_tokens_are_pooled_by_nobody(pooling):
    """The score is that of the encoder's output at real tokens; left padding moves the first one."""
    model = classifier(pooling=pooling, extra_tokens=3, mechanism="local(left=2)")
    assert model.state_dict()["encoder.extra"].shape == (3, 21)
    x = torch.randint(17, (3, 11))
    key_mask = torch.stack([torch.ones(11).bool(), torch.arange(11) >= 4, torch.zeros(11).bool()])
    inside = model.encoder(model.position.on_input(model.embedding(x)), key_mask)
    assert inside.shape == (3, 11, 21)
    real = [inside[0], inside[1, 4:]]
    pooled = [each.mean(0) if pooling == "mean" else each[0] for each in real]
    pooled = torch.stack([*pooled, torch.zeros_like(pooled[0])])
    torch.testing.assert_close(model(x, key_mask), model.output(pooled), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_lstm_stands_in_place_of_the_encoder(pooling, tmp_path):
    model = classifier(network="lstm", width=18, pooling=pooling)
    x, key_mask = tokens(11, 7, 1, n=11)
    together = model(x, key_mask)
    plain = nn.LSTM(18, 9, 2, bidirectional=True).double()
    plain.load_state_dict(model.encoder.lstm.state_dict())
    for row, length in enumerate((11, 7, 1)):
        out = plain(model.embedding(x[row, :length]))[0][None]
        expected = model.output(model.pooling(out, torch.ones(1, length).bool()))
        torch.testing.assert_close(together[row : row + 1], expected, rtol=0, atol=1e-12)
    model.float().save_pretrained(tmp_path)
    assert torch.equal(SequenceClassifier.from_pretrained(tmp_path)(x, key_mask), model(x, key_mask))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mechanism": "linear"}, "mechanism must be full, which is the default, as an LSTM has none, got 'linear'"),
        ({"extra_tokens": 1}, "extra_tokens must be 0, as an LSTM has none, got 1"),
        ({"width": 21, "heads": 3}, "width must be even, as each direction has half of it, got 21"),
    ],
)
def test_what_an_lstm_has_not_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ClassifierSettings(network="lstm", **options)


def test_settings_from_before_networks_and_queries_load_unchanged(tmp_path):
    model = SequenceClassifier(17, 5, SMALL).eval()
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    found = json.loads(path.read_text())
    del found["settings"]["network"]
    path.write_text(json.dumps(found))
    assert {name.partition(".")[0] for name in model.state_dict()} == {"embedding", "encoder", "output"}
    assert SequenceClassifier.from_pretrained(tmp_path).settings == SMALL


def test_a_classifier_with_extra_tokens_is_saved_and_trained(tmp_path):
    model = SequenceClassifier(17, 5, replace(SMALL, extra_tokens=2, mechanism=("local(left=1)", "linear"))).eval()
    x, key_mask = tokens(11, 7, n=11)
    (grad,) = torch.autograd.grad(model(x, key_mask).sum(), model.encoder.extra)
    assert (grad != 0).all()
    model.save_pretrained(tmp_path)
    assert torch.equal(SequenceClassifier.from_pretrained(tmp_path)(x, key_mask), model(x, key_mask))


def test_the_scores_depend_on_positions_dropout_and_norm():
    x, key_mask = tokens(11, 7, n=11)
    model = classifier()
    plain = classifier(position="none")
    plain.load_state_dict(model.state_dict())
    assert not torch.allclose(model(x, key_mask), plain(x, key_mask))
    assert torch.allclose(plain(x.flip(1)), plain(x))
    post = classifier(norm="post")
    assert set(post.state_dict()) == set(model.state_dict()) - {"encoder.norm.weight", "encoder.norm.bias"}
    assert not torch.equal(model.train()(x, key_mask), model(x, key_mask))


def test_a_saved_model_is_loaded_equal_and_ready_to_use(tmp_path):
    settings = replace(SMALL, mechanism=("local(left=2)", "linear"), position="learned")
    model = SequenceClassifier(17, 5, settings).eval()
    model.save_pretrained(tmp_path / "run")
    loaded = SequenceClassifier.from_pretrained(tmp_path / "run")
    x, key_mask = tokens(11, 7, n=11)
    assert torch.equal(loaded(x, key_mask), model(x, key_mask))
    assert loaded.settings == settings
    assert not loaded.training
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"model.safetensors", "config.json"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 7}, r"output\.weight must be of shape \(7, 21\), got \(5, 21\)"),
        ({"vocabulary_size": 3}, r"embedding\.weight must be of shape \(3, 21\), got \(17, 21\)"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, change, message):
    SequenceClassifier(17, 5, SMALL).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "sizes": {**found["sizes"], **change}}))
    with pytest.raises(ValueError, match=message):
        SequenceClassifier.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mechanism": "ful"}, r"mechanism must be one of .*got 'ful' \(did you mean 'full'\?\)"),
        ({"mechanism": ("full", "locl")}, "mechanism must be one of .*got 'locl'"),
        ({"position": "lerned"}, r"position must be one of .*got 'lerned' \(did you mean 'learned'\?\)"),
        ({"normalisation": "layr"}, r"normalisation must be one of .*got 'layr' \(did you mean 'layer'\?\)"),
        ({"pooling": "max"}, "pooling must be one of first, mean, query, got 'max'"),
        ({"network": "gru"}, "network must be one of lstm, transformer, got 'gru'"),
    ],
)
def test_names_that_are_unknown_are_refused_before_any_model_is_built(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        ClassifierSettings(**options)


@pytest.mark.parametrize("position", POSITIONS)
def test_every_position_is_one_word_of_the_settings(position, tmp_path):
    if position == "flow":
        pytest.importorskip("torchdiffeq")
    model = classifier(position=position).float()
    x, key_mask = tokens(11, 7, n=11)
    together = model(x, key_mask)
    torch.testing.assert_close(model(x[1:, :7])[0], together[1], rtol=0, atol=1e-5)
    swapped = x[:1, [1, 0, *range(2, 11)]]
    same = torch.allclose(model(swapped), model(x[:1]), rtol=0, atol=1e-6)
    assert same == (position == "none" or bool(x[0, 0] == x[0, 1]))
    model.save_pretrained(tmp_path)
    assert torch.equal(SequenceClassifier.from_pretrained(tmp_path)(x, key_mask), together)


def test_a_position_that_a_mechanism_cannot_carry_is_refused_before_any_model_is_built():
    with pytest.raises(ValueError, match=r"mechanism must be full, a pattern or .* ALiBi .*, got 'linear'"):
        ClassifierSettings(mechanism=("full", "linear"), position="alibi")
    with pytest.raises(ValueError, match="mechanism must be one that reads queries and keys, as Rotary"):
        ClassifierSettings(mechanism="synthesizer", position="rotary")
    with pytest.raises(ValueError, match=r"extra_tokens must be 0 for Rotary positions, .* got 1"):
        ClassifierSettings(position="rotary", extra_tokens=1)


@pytest.mark.parametrize("normalisation", NORMS)
def test_every_norm_is_one_word_of_the_settings(normalisation):
    model = classifier(normalisation=normalisation)
    x, key_mask = tokens(11, 7, n=11)
    assert type(model.encoder.norm) is type(NORMS[normalisation](3))
    torch.testing.assert_close(model(x[1:, :7])[0], model(x, key_mask)[1], rtol=0, atol=1e-10)
    model.train()(x, key_mask).sum().backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_a_mechanism_that_cannot_have_extra_tokens_is_refused_before_any_model_is_built(monkeypatch):
    monkeypatch.setattr(MECHANISMS["linear"], "behind", Mechanism.behind)
    with pytest.raises(ValueError, match="to stand behind extra tokens, got 'linear'"):
        ClassifierSettings(mechanism=("full", "linear"), extra_tokens=1)
    ClassifierSettings(mechanism=("full", "linear"))


def test_sizes_that_cannot_be_are_refused(unchecked):
    with pytest.raises(ValueError, match="vocabulary_size must be at least 1, got 0"):
        SequenceClassifier(0, 5, SMALL)
    with pytest.raises(ValueError, match="classes must be at least 1, got 0"):
        SequenceClassifier(17, 0, SMALL)
    with pytest.raises(ValueError, match=r"tokens must be of shape \[batch, length\], not empty, got \(3, 0\)"):
        classifier()(torch.zeros(3, 0, dtype=torch.long))
    with pytest.raises(ValueError, match=r"length must be at most 13 .*got 14"):
        classifier(position="learned")(torch.zeros(3, 14, dtype=torch.long))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"hidden": -1}, "hidden must be at least 1, got -1"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
        ({"width": 10, "heads": 4}, "width must be a multiple of the 4 heads, got 10"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"extra_tokens": -1}, "extra_tokens must be a whole number, at least 0, got -1"),
        ({"extra_tokens": True}, "extra_tokens must be a whole number, at least 0, got True"),
        (
            {"mechanism": ("full",), "layers": 2},
            r"mechanism must be one, or one for each of the 2 layers, got \['full'",
        ),
    ],
)
def test_settings_refuse_what_no_model_can_have(settings, message):
    with pytest.raises(ValueError, match=message):
        ClassifierSettings(**settings)

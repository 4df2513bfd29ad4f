from dataclasses import replace

import pytest
import torch
from torch import nn

from saccade.models import Tagger, TaggerSettings, WordSettings
from saccade.models.networks import NETWORKS, LSTMSettings, TransformerSettings, WindowNetworkSettings
from saccade.models.networks.window import windows

WORDS = WordSettings(width=11, letter_width=5, features=7)
TRANSFORMER = TransformerSettings(width=12, heads=3, layers=2, hidden=17)
SMALL = TaggerSettings("lstm", 0.3, WORDS, TRANSFORMER, WindowNetworkSettings(2, 13), LSTMSettings(9, 2))
SETTINGS = {
    **{network: replace(SMALL, network=network) for network in NETWORKS},
    "wide window": replace(SMALL, network="window", window=WindowNetworkSettings(9, 13)),
    "word alone": replace(SMALL, network="window", window=WindowNetworkSettings(0, 13)),
    **{
        mechanism: replace(SMALL, network="transformer", transformer=replace(TRANSFORMER, mechanism=mechanism))
        for mechanism in ("local(left=2)", "linear")
    },
    "rotary": replace(SMALL, network="transformer", transformer=replace(TRANSFORMER, position="rotary")),
    "words alone": replace(SMALL, words=replace(WORDS, features=0)),
}


def tagger(settings=SMALL):
    return Tagger(23, 19, 5, settings).double().eval()


def batch(*lengths, n, letters):
    """Words of 1 to `letters` letters, padded with zeros on the right in both axes."""
    key_mask = torch.arange(n) < torch.tensor(lengths)[:, None]
    spelled = torch.arange(letters) < torch.randint(1, letters + 1, (*key_mask.shape, 1))
    characters = torch.randint(1, 19, (*key_mask.shape, letters)) * spelled * key_mask[..., None]
    return torch.randint(1, 23, key_mask.shape) * key_mask, characters, key_mask


@pytest.mark.parametrize("name", SETTINGS)
def test_neither_the_batch_nor_the_padding_changes_a_score(name):
    model = tagger(SETTINGS[name])
    words, characters, key_mask = batch(11, 7, 1, 0, n=13, letters=6)
    together = model(words, characters, key_mask)
    assert together.shape == (4, 13, 5)
    for row, length in enumerate((11, 7, 1)):
        letters = int((characters[row, :length] > 0).sum(-1).max())
        one = words[row : row + 1, :length], characters[row : row + 1, :length, :letters]
        alone = model(*one, key_mask[row : row + 1, :length])
        torch.testing.assert_close(together[row, :length], alone[0], rtol=0, atol=1e-12)
    others = torch.where(key_mask, words, 22), torch.where(key_mask[..., None], characters, 18)
    assert torch.equal(model(*others, key_mask)[key_mask], together[key_mask])


@pytest.mark.parametrize("name", SETTINGS)
def test_what_stands_behind_the_mask_has_no_gradient(name):
    model = tagger(SETTINGS[name])
    words, characters, key_mask = batch(9, 4, n=9, letters=6)
    words[~key_mask], characters[~key_mask] = 22, 18
    words[key_mask] = words[key_mask].clamp(max=21)
    characters[key_mask] = characters[key_mask].clamp(max=17)
    model(words, characters, key_mask)[key_mask].sum().backward()
    assert (model.embedding.words.weight.grad[22] == 0).all()
    assert (model.embedding.words.weight.grad[words[key_mask]] != 0).any()
    if model.embedding.characters is not None:
        assert (model.embedding.characters.embedding.weight.grad[18] == 0).all()


@pytest.mark.parametrize("reach", [0, 1, 3])
def test_a_window_is_what_a_loop_gathers(reach):
    x, outside = torch.randn(2, 5, 3), torch.randn(3)
    found = windows(x, outside, reach)
    assert found.shape == (2, 5, (2 * reach + 1) * 3)
    for row in range(2):
        for place in range(5):
            near = [x[row, i] if 0 <= i < 5 else outside for i in range(place - reach, place + reach + 1)]
            assert torch.equal(found[row, place], torch.cat(near))


def test_the_window_tagger_is_a_loop_over_words():
    model = tagger(SETTINGS["window"])
    words, characters, key_mask = batch(7, 3, n=7, letters=6)
    found = model(words, characters, key_mask)
    network = model.network
    for row, length in enumerate((7, 3)):
        vectors = model.embedding(words[row : row + 1, :length], characters[row : row + 1, :length])[0]
        for i in range(length):
            near = [vectors[j] if 0 <= j < length else network.outside for j in range(i - 2, i + 3)]
            hidden = (network.hidden.weight @ torch.cat(near) + network.hidden.bias).clamp(min=0)
            expected = model.output.weight @ hidden + model.output.bias
            torch.testing.assert_close(found[row, i], expected, rtol=0, atol=1e-12)


def test_a_window_sees_what_it_reaches_and_no_more():
    model = tagger(SETTINGS["window"])
    words, characters, key_mask = batch(9, n=9, letters=6)
    before = model(words, characters, key_mask)
    words[0, 4] = words[0, 4] % 22 + 1
    changed = (model(words, characters, key_mask) != before).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == [2, 3, 4, 5, 6]


def test_the_lstm_is_torchs_sentence_by_sentence():
    model = tagger()
    words, characters, key_mask = batch(8, 5, 1, n=8, letters=6)
    found = model(words, characters, key_mask)
    plain = nn.LSTM(18, 9, 2, bidirectional=True).double()
    plain.load_state_dict(model.network.lstm.state_dict())
    for row, length in enumerate((8, 5, 1)):
        vectors = model.embedding(words[row : row + 1, :length], characters[row : row + 1, :length])[0]
        torch.testing.assert_close(found[row, :length], model.output(plain(vectors)[0]), rtol=0, atol=1e-12)


def test_padding_before_a_word_is_refused_by_the_lstm():
    words, characters, key_mask = batch(4, 4, n=4, letters=6)
    key_mask[1, 0] = False
    with pytest.raises(ValueError, match="key_mask must be False only behind the last token of each sequence"):
        tagger()(words, characters, key_mask)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_saved_tagger_is_loaded_equal(name, tmp_path):
    model = Tagger(23, 19, 5, SETTINGS[name])
    model.save_pretrained(tmp_path)
    loaded = Tagger.from_pretrained(tmp_path)
    assert loaded.settings == SETTINGS[name]
    assert loaded.sizes == {"words": 23, "characters": 19, "tags": 5}
    inputs = batch(4, 2, n=4, letters=6)
    assert torch.equal(loaded(*inputs), model.eval()(*inputs))


def test_each_network_is_built_from_its_own_settings():
    assert tagger(SETTINGS["transformer"]).network.encoder.layers[1].feed_forward[0].out_features == 17
    assert tagger(SETTINGS["wide window"]).network.hidden.in_features == 19 * 18
    assert tagger(SETTINGS["lstm"]).network.lstm.hidden_size == 9
    assert tagger(SETTINGS["words alone"]).embedding.width == 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: replace(SMALL, network="gru"), "network must be one of lstm, transformer, window, got 'gru'"),
        (lambda: replace(SMALL, dropout=1.0), "dropout must be at least 0 and below 1, got 1.0"),
        (lambda: WordSettings(width=0), "width must be a whole number, at least 1, got 0"),
        (lambda: WordSettings(features=-1), "features must be a whole number, at least 0, got -1"),
        (lambda: WordSettings(kernel=4), "kernel must be an odd number, got 4"),
        (lambda: WindowNetworkSettings(reach=-1), "reach must be a whole number, at least 0, got -1"),
        (lambda: WindowNetworkSettings(hidden=0), "hidden must be a whole number, at least 1, got 0"),
        (lambda: LSTMSettings(layers=0), "layers must be a whole number, at least 1, got 0"),
        (lambda: LSTMSettings(dropout=-0.1), "dropout must be at least 0 and below 1, got -0.1"),
        (lambda: TransformerSettings(width=10, heads=4), "width must be a multiple of the 4 heads, got 10"),
        (lambda: TransformerSettings(mechanism="ful"), "did you mean 'full'"),
        (lambda: Tagger(0, 19, 5, SMALL), "words must be a whole number, at least 1, got 0"),
        (lambda: Tagger(23, 19, 0, SMALL), "tags must be a whole number, at least 1, got 0"),
    ],
)
def test_shapes_that_cannot_be_are_refused(change, message, unchecked):
    with pytest.raises(ValueError, match=message):
        change()


def test_no_words_are_refused(unchecked):
    empty = torch.zeros(2, 0, dtype=torch.long)
    with pytest.raises(ValueError, match=r"words must be of shape \[batch, length\], not empty, got \(2, 0\)"):
        tagger()(empty, empty[..., None], empty.bool())

"""The models of this package decoded with their states: as if all were read again, and alone as in the batch."""

import pytest
import torch

from saccade.generation import Beam, Greedy, Recomputed, Sampling, SpecialTokens, generate
from saccade.models import LanguageModel, LanguageModelSettings, Seq2Seq, Seq2SeqSettings, Source

VOCABULARY, ROWS = 19, 6
SPECIAL = SpecialTokens(pad=0, eos=2, never=(1,))
SEEDS = torch.arange(ROWS)
METHODS = [
    Greedy(max_length=8),
    Sampling(max_length=8, results=2),
    Beam(width=3, results=2, max_length=8),
    Beam(width=4, max_length=3, max_ratio=1.5, stop="full"),
]
LENGTHS = torch.tensor([4, 1, 6, 3, 6, 2])

named = pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.name}-{method.max_ratio}")
mechanisms = pytest.mark.parametrize("mechanism", ["full", "linear", "local(left=3)"])


def sure(model):
    """In float64, and with larger weights than they begin with, so that it has opinions."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2.5)
    return model.double().eval()


def written(found):
    return [tuple(row[:length].tolist()) for row, length in zip(found.tokens, found.lengths, strict=True)]


def assert_the_same(one, other):
    assert written(one) == written(other)
    torch.testing.assert_close(one.scores, other.scores)
    torch.testing.assert_close(one.log_probs, other.log_probs)


def texts(seed):
    return torch.randint(3, VOCABULARY, (ROWS, 6), generator=torch.Generator().manual_seed(seed))


def language_model(mechanism):
    settings = LanguageModelSettings(mechanism=mechanism, width=24, heads=3, layers=2, hidden=32)
    return sure(LanguageModel(VOCABULARY, settings))


def seq2seq(mechanism):
    settings = Seq2SeqSettings(decoder_mechanism=mechanism, width=24, heads=3, hidden=32)
    return sure(Seq2Seq(VOCABULARY, settings))


@mechanisms
@named
def test_a_language_model(mechanism, method):
    model, prompts = language_model(mechanism), texts(0)
    options = {"source_lengths": LENGTHS, "seeds": SEEDS}
    found = generate(model, method, prompts, SPECIAL, prompt_lengths=LENGTHS, **options)
    recomputed = Recomputed(lambda tokens: model(tokens))
    assert_the_same(found, generate(recomputed, method, prompts, SPECIAL, prompt_lengths=LENGTHS, **options))
    alone = []
    for row, length in enumerate(LENGTHS.tolist()):
        options = {"source_lengths": LENGTHS[row : row + 1], "seeds": SEEDS[row : row + 1]}
        alone += written(generate(model, method, prompts[row : row + 1, :length], SPECIAL, **options))
    assert alone == written(found)
    assert len(set(alone)) > 2


@mechanisms
@named
def test_sequence_to_sequence(mechanism, method):
    model, sources = seq2seq(mechanism), texts(1)
    mask = torch.arange(sources.shape[1]) < LENGTHS[:, None]
    begin = torch.ones(ROWS, 1, dtype=torch.long)
    options = {"source": Source(sources, mask), "source_lengths": LENGTHS, "seeds": SEEDS}
    found = generate(model, method, begin, SPECIAL, **options)
    recomputed = Recomputed(lambda tokens, source, key_mask: model(source, tokens, key_mask))
    assert_the_same(found, generate(recomputed, method, begin, SPECIAL, **options))
    alone = []
    for row, length in enumerate(LENGTHS.tolist()):
        one = slice(row, row + 1)
        options = {"source": Source(sources[one, :length]), "source_lengths": LENGTHS[one], "seeds": SEEDS[one]}
        alone += written(generate(model, method, begin[one], SPECIAL, **options))
    assert alone == written(found)
    assert len(set(alone)) > 2

import pytest
import torch

from saccade.data.masking import masked
from saccade.data.tokenizer import MASK, SPECIALS, UNK

VOCABULARY = 31


@pytest.fixture
def tokens():
    return torch.randint(len(SPECIALS), VOCABULARY, (101, 997))


def test_shares_are_those_of_the_paper(tokens):
    real = torch.ones_like(tokens, dtype=torch.bool)
    inputs, chosen = masked(tokens, real, 0.15, VOCABULARY)
    assert chosen.double().mean().item() == pytest.approx(0.15, abs=0.005)
    hidden, kept = (inputs == MASK)[chosen], (inputs == tokens)[chosen]
    assert hidden.double().mean().item() == pytest.approx(0.8, abs=0.01)
    # One in a vocabulary is replaced by itself.
    assert kept.double().mean().item() == pytest.approx(0.1 + 0.1 / VOCABULARY, abs=0.01)
    replaced = inputs[chosen][~hidden & ~kept]
    assert int(replaced.min()) >= len(SPECIALS)
    assert int(replaced.max()) == VOCABULARY - 1
    assert torch.equal(inputs[~chosen], tokens[~chosen])


def test_padding_and_special_tokens_are_left_alone(tokens):
    tokens[:, ::3] = UNK
    real = torch.arange(997) < 500
    inputs, chosen = masked(tokens, real.expand_as(tokens), 0.9, VOCABULARY)
    assert not chosen[:, ::3].any()
    assert not chosen[:, 500:].any()
    assert torch.equal(inputs[:, 500:], tokens[:, 500:])


def test_a_generator_decides(tokens):
    real = torch.ones_like(tokens, dtype=torch.bool)
    first, again = (masked(tokens, real, 0.2, VOCABULARY, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, masked(tokens, real, 0.2, VOCABULARY).inputs)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_shares_that_cannot_be(tokens, share):
    with pytest.raises(ValueError, match="share must be above 0 and below 1"):
        masked(tokens, tokens > 0, share, VOCABULARY)


def test_a_vocabulary_of_nothing(tokens):
    with pytest.raises(ValueError, match="vocabulary must be larger than the 6 special tokens, got 6"):
        masked(tokens, tokens > 0, 0.5, 6)

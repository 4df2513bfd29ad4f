import pytest
import torch

from saccade.generation import Beam, Greedy, Recomputed, Sampling, SpecialTokens, Windowed, generate
from saccade.models import LanguageModel, LanguageModelSettings


@pytest.fixture
def model():
    settings = LanguageModelSettings("local(left=3)", width=12, heads=2, layers=1, hidden=19, position="rotary")
    return LanguageModel(11, settings).double().eval()


def begin_of(count, length, kept):
    """Where the window stands in which the last of `count` tokens is read: followed token by token."""
    begin = 0
    for read in range(1, count + 1):
        if read - begin > length:
            begin += length - kept
    return begin


@pytest.mark.parametrize(("length", "kept"), [(8, None), (7, None), (5, 1), (6, 5), (2, 1), (100, None)])
def test_every_token_is_read_from_where_its_window_begins(model, length, kept):
    tokens = torch.randint(6, 11, (3, 29))
    windowed = Windowed(model, length, kept)
    logits, state = windowed.start(tokens[:, :1])
    with torch.no_grad():
        for count in range(1, 30):
            begin = begin_of(count, length, length // 2 if kept is None else kept)
            wanted = model(tokens[:, begin:count])[:, -1]
            assert torch.allclose(logits, wanted, atol=1e-12, rtol=0)
            at_once, _ = windowed.start(tokens[:, :count])
            assert torch.allclose(at_once, wanted, atol=1e-12, rtol=0)
            if count < 29:
                logits, state = windowed.advance(tokens[:, count], state)
    assert state.tokens.shape[1] <= length


@pytest.mark.parametrize("method", [Greedy(max_length=25), Sampling(max_length=25), Beam(width=3, max_length=25)])
def test_a_row_comes_out_the_same_alone_and_in_a_batch(model, method):
    special, windowed = SpecialTokens(pad=0, never=(1, 2, 3, 4, 5)), Windowed(model, 8)
    prompts, lengths, seeds = torch.randint(6, 11, (3, 13)), torch.tensor([13, 2, 9]), torch.tensor([5, 6, 7])
    whole = generate(windowed, method, prompts, special, prompt_lengths=lengths, seeds=seeds)
    for row, length in enumerate(lengths.tolist()):
        alone = generate(windowed, method, prompts[row : row + 1, :length], special, seeds=seeds[row : row + 1])
        assert torch.equal(alone.tokens[0], whole.tokens[row])


@pytest.mark.parametrize("kept", [None, 1, 6])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 23, 29])
def test_what_is_forgotten_may_be_left_out(model, kept, count):
    windowed, special = Windowed(model, 7, kept), SpecialTokens(pad=0)
    prompts = torch.randint(6, 11, (2, count))
    short = prompts[:, windowed.forgotten(count) :]
    assert 1 <= short.shape[1] <= 7
    whole = generate(windowed, Greedy(max_length=20), prompts, special)
    assert torch.equal(generate(windowed, Greedy(max_length=20), short, special).tokens, whole.tokens)


def test_in_one_window_nothing_changes(model):
    special, prompts = SpecialTokens(pad=0), torch.randint(6, 11, (2, 3))
    plain = generate(Recomputed(model), Greedy(max_length=9), prompts, special)
    assert torch.equal(generate(Windowed(model, 12), Greedy(max_length=9), prompts, special).tokens, plain.tokens)


@pytest.mark.parametrize(
    ("length", "kept", "message"),
    [(1, None, "length must be at least 2, got 1"), (5, 5, "kept must be from 1 to 4"), (5, 0, "kept must be from 1")],
)
def test_windows_that_cannot_be(model, length, kept, message):
    with pytest.raises(ValueError, match=message):
        Windowed(model, length, kept)


def test_there_is_no_source(model):
    with pytest.raises(ValueError, match="source must be None for a window of a text, got 'tuple'"):
        Windowed(model, 8).start(torch.ones(1, 2, dtype=torch.long), ())

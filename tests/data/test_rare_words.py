import torch

from saccade.data.rare_words import chances, hide
from saccade.data.tokenizer import UNK


def test_the_chance_falls_with_the_count():
    found = chances(torch.tensor([6, 7, 7, 7, 8, 8]), 10, 0.25)
    torch.testing.assert_close(found[[6, 7, 8]], torch.tensor([0.25 / 1.25, 0.25 / 3.25, 0.25 / 2.25]))
    assert (chances(torch.tensor([6]), 10, 0.0) == 0).all()


def test_as_many_words_are_hidden_as_their_chances_say():
    words = torch.tensor([6, 7, 8]).repeat(4, 5000)
    found = hide(words, torch.tensor([0.0] * 6 + [0.2, 0.5, 0.0]))
    for word, share in ((6, 0.2), (7, 0.5), (8, 0.0)):
        assert abs((found[words == word] == UNK).double().mean() - share) < 0.015
    assert torch.equal(found[found != UNK], words[found != UNK])
    assert not torch.equal(hide(words, torch.full((9,), 0.5)), hide(words, torch.full((9,), 0.5)))

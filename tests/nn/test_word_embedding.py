import pytest
import torch

from saccade.nn.word_embedding import CharacterSummary, WordEmbedding

SPELLED = torch.tensor([[3, 1, 4, 0, 0], [1, 5, 9, 2, 6], [7, 0, 0, 0, 0], [0, 0, 0, 0, 0]])


def summary(features=6, kernel=3):
    return CharacterSummary(11, 4, features, kernel).double()


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_summary_is_the_largest_value_over_the_places_of_a_word(kernel):
    module = summary(kernel=kernel)
    found = module(SPELLED)
    weight, bias = module.convolution.weight, module.convolution.bias
    for row, letters in enumerate((3, 5, 1)):
        vectors = module.embedding(SPELLED[row, :letters])
        values = []
        for place in range(letters):
            total = bias.clone()
            for tap in range(kernel):
                if 0 <= (i := place + tap - kernel // 2) < letters:
                    total = total + weight[:, :, tap] @ vectors[i]
            values.append(total)
        torch.testing.assert_close(found[row], torch.stack(values).amax(0).clamp(min=0), rtol=0, atol=1e-12)
    assert (found[3] == 0).all()


def test_more_room_behind_a_word_changes_nothing():
    module = summary()
    wider = torch.cat([SPELLED, torch.zeros(4, 3, dtype=torch.long)], 1)
    torch.testing.assert_close(module(wider), module(SPELLED), rtol=0, atol=1e-12)
    assert module(SPELLED[:, :0]).tolist() == [[0.0] * 6] * 4


def test_words_with_the_same_letters_differ_and_the_same_word_has_its_own_vector_beside_them():
    embedding = WordEmbedding(5, 11, 3, 4, 6).double()
    assert embedding.width == 9
    words = torch.tensor([[1, 2], [1, 1]])
    found = embedding(words, SPELLED.view(2, 2, 5))
    assert torch.equal(found[..., :3], embedding.words(words))
    assert torch.equal(found[..., 3:].flatten(0, 1), embedding.characters(SPELLED))
    assert WordEmbedding(5, 11, 3, features=0)(words, SPELLED.view(2, 2, 5)).shape == (2, 2, 3)


def test_a_word_without_an_id_still_has_its_letters():
    embedding = WordEmbedding(5, 11, 3, 4, 6)
    ends = torch.tensor([[[3, 1, 4], [9, 1, 4]]])
    one, other = embedding(torch.tensor([[3, 3]]), ends)[0]
    assert torch.equal(one[:3], other[:3])
    assert not torch.equal(one[3:], other[3:])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CharacterSummary(11, 4, 6, 2), "kernel must be an odd number, got 2"),
        (lambda: CharacterSummary(0, 4, 6), "characters must be a whole number, at least 1, got 0"),
        (lambda: WordEmbedding(0, 11, 3), "words must be a whole number, at least 1, got 0"),
        (lambda: WordEmbedding(5, 11, 3, features=-1), "features must be a whole number, at least 0, got -1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()

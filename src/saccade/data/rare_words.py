"""Rare words that are read as unknown ones now and then in training, so that a model learns what to make of those.

A word that training has c times becomes `<unk>` with the chance a / (a + c) (Kiperwasser and Goldberg 2016, section
3.2.1, who take a = 0.25): a word that was seen once often, a frequent one hardly ever. Its characters stay.
"""

import torch

from saccade.data.tokenizer import UNK
from saccade.shapes import Float, Int, Tensor


def chances(words: Int[Tensor, " n"], size: int, strength: float) -> Float[Tensor, " v"]:
    """The chance of each word of a vocabulary to be read as unknown.

    Args:
        words: the ids of all words of the training text.
        size: of the vocabulary.
        strength: a in the formula; 0 hides nothing.
    """
    counts = words.long().bincount(minlength=size)
    return strength / (strength + counts.clamp(min=1))


def hide(words: Int[Tensor, "b n"], chances: Float[Tensor, " v"]) -> Int[Tensor, "b n"]:
    """The words, some of them drawn to be unknown, by torch's global generator."""
    drawn = torch.rand(words.shape, device=words.device) < chances.to(words.device)[words]
    return words.masked_fill(drawn, UNK)

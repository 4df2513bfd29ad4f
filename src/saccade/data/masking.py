"""What a masked language model reads: a text in which some tokens were chosen, to be found again (Devlin et al. 2019).

Of the chosen tokens eight in ten become `<mask>`, one becomes any token of the vocabulary, and one stays as it is: so
the model must say what stands at every place, masked or not.
"""

from typing import NamedTuple

import torch

from saccade.data.tokenizer import MASK, SPECIALS
from saccade.errors import must_be
from saccade.shapes import Bool, Int, Tensor

MASKED, REPLACED = 0.8, 0.1
"""Shares of the chosen tokens; the rest stay as they are."""


class Masked(NamedTuple):
    """A text with some tokens to be found again.

    Attributes:
        inputs: what is read.
        chosen: True at the tokens to be found.
    """

    inputs: Int[Tensor, "b n"]
    chosen: Bool[Tensor, "b n"]


def masked(
    tokens: Int[Tensor, "b n"],
    real: Bool[Tensor, "b n"],
    share: float,
    vocabulary: int,
    generator: torch.Generator | None = None,
) -> Masked:
    """Choose tokens, each on its own, and hide most of them.

    Args:
        tokens: ids.
        real: True for those that may be chosen. Special tokens never are, but for `<unk>`.
        share: of the tokens that are chosen.
        vocabulary: how many ids there are.
        generator: on the CPU, where the draws come from; torch's global one if not given.

    Raises:
        ValueError: a share that is none, or a vocabulary of special tokens alone.
    """
    if not 0 < share < 1:
        raise ValueError(must_be("share", "above 0 and below 1", share))
    if vocabulary <= len(SPECIALS):
        raise ValueError(must_be("vocabulary", f"larger than the {len(SPECIALS)} special tokens", vocabulary))
    place, fate = (torch.rand(tokens.shape, generator=generator).to(tokens.device) for _ in range(2))
    others = torch.randint(len(SPECIALS), vocabulary, tokens.shape, generator=generator).to(tokens)
    chosen = real & (tokens >= len(SPECIALS)) & (place < share)
    inputs = torch.where(chosen & (fate < MASKED), MASK, tokens)
    return Masked(torch.where(chosen & (fate >= 1 - REPLACED), others, inputs), chosen)

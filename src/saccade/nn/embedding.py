"""Token embeddings whose table is the output layer too (Press and Wolf 2017; Vaswani et al. 2017, section 3.4)."""

import math

import torch
from torch import nn
from torch.nn import functional

from saccade.errors import whole_number
from saccade.shapes import Float, Int, Tensor


class TiedEmbedding(nn.Module):
    """One vector a token: scaled by `sqrt(width)` where it goes in, and what outputs are compared with.

    With one vocabulary for source and target, one module serves three times, as in the paper.

    Args:
        vocabulary_size: how many tokens there are.
        width: the model width c.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(self, vocabulary_size: int, width: int) -> None:
        super().__init__()
        whole_number("vocabulary_size", vocabulary_size)
        whole_number("width", width)
        # Scaled up on the way in, tokens are as large as the positions added to them; on the way out, the product with
        # a normalised vector has variance 1.
        self.weight = nn.Parameter(torch.randn(vocabulary_size, width) / math.sqrt(width))

    def forward(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b n c"]:
        """The vectors of the tokens, times `sqrt(width)`."""
        return functional.embedding(tokens, self.weight) * math.sqrt(self.weight.shape[1])

    def logits(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b v"]:
        """How well each token fits: its product with what the network has made."""
        return functional.linear(x, self.weight)

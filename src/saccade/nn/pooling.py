"""One vector for a sequence, from its real tokens only; zeros where there are none.

`mean` is the mean, `first` the first real token (as in BERT, Devlin et al. 2019), `query` a mean whose weights are
learned: a vector that is learned attends over the tokens, as the context vector of Yang et al. (2016), "Hierarchical
Attention Networks for Document Classification", section 2.2, does, with the products of dot-product attention. Cost:
linear in the length.
"""

from abc import ABC, abstractmethod

import torch
from torch import nn

from saccade.attention import attend
from saccade.shapes import Bool, Float, Tensor


class Pooling(nn.Module, ABC):
    """From a vector a token to one a sequence.

    Args:
        width: of the vectors.
    """

    def __init__(self, width: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, x: Float[Tensor, "b n c"], key_mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b c"]:
        """One vector a sequence.

        Args:
            x: the vectors of tokens.
            key_mask: True for real tokens. What stands at the others never matters.
        """


class MeanPooling(Pooling):
    """The mean of the real tokens."""

    def forward(self, x: Float[Tensor, "b n c"], key_mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b c"]:
        """As `Pooling.forward`."""
        x = x.masked_fill(~key_mask[..., None], 0)
        return x.sum(1) / key_mask.sum(1, keepdim=True).clamp(min=1)


class FirstPooling(Pooling):
    """The first real token."""

    def forward(self, x: Float[Tensor, "b n c"], key_mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b c"]:
        """As `Pooling.forward`."""
        x = x.masked_fill(~key_mask[..., None], 0)
        return x[torch.arange(x.shape[0], device=x.device), key_mask.int().argmax(1)]


class QueryPooling(Pooling):
    """The mean of the real tokens, weighted by how well each fits a vector that is learned.

    The vector begins as zeros, with which it is the plain mean.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.query = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "b n c"], key_mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b c"]:
        """As `Pooling.forward`: `softmax(x q / sqrt(c)) x`."""
        keys = x[:, None]
        return attend(self.query.expand(len(x), 1, 1, -1), keys, keys, key_mask=key_mask)[:, 0, 0]


POOLINGS: dict[str, type[Pooling]] = {"mean": MeanPooling, "first": FirstPooling, "query": QueryPooling}
"""Each name with its class."""

"""What a network over tokens is: a vector at each token goes in, one that knows its surroundings comes out."""

from abc import ABC, abstractmethod

from torch import nn

from saccade.attention.record import Record
from saccade.shapes import Bool, Float, Tensor


class TokenNetwork(nn.Module, ABC):
    """From a vector at each token to one that knows its surroundings.

    Attributes:
        width: of what comes out.
        max_length: the longest sequence it can read; `None` where there is no limit.
    """

    width: int
    max_length: int | None = None

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "b n c"], key_mask: Bool[Tensor, "b n"], record: Record | None = None
    ) -> Float[Tensor, "b n f"]:
        """The vectors in their surroundings.

        Args:
            x: the vectors of tokens.
            key_mask: True for real tokens. What stands at the others matters to no output at a real token.
            record: collects what it asks for from layers of attention.
        """

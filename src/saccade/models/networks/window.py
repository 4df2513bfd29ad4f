"""A feed-forward network over a window: the vectors of a token and its neighbours go through one hidden layer.

The window approach of Collobert et al. (2011), "Natural Language Processing (Almost) from Scratch", section 3.3.1: with
reach w the network reads the 2w + 1 vectors around each token, and beyond the ends of a sentence a vector that is
learned for it. Cost: linear in the length and in the reach.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import relu

from saccade.attention.record import Record
from saccade.errors import whole_number
from saccade.models.networks.network import TokenNetwork
from saccade.shapes import Bool, Float, Tensor


def windows(x: Float[Tensor, "b n c"], outside: Float[Tensor, " c"], reach: int) -> Float[Tensor, "b n f"]:
    """At each place the vectors from `reach` before it to `reach` behind it, side by side; `outside` past the ends."""
    ends = outside.expand(x.shape[0], reach, -1)
    # The window is the last axis after `unfold`.
    return torch.cat([ends, x, ends], 1).unfold(1, 2 * reach + 1, 1).mT.flatten(2)


class WindowNetwork(TokenNetwork):
    """A hidden layer over windows of vectors.

    Args:
        inputs: width of the vectors that come in.
        settings: its shape.
    """

    def __init__(self, inputs: int, settings: "WindowNetworkSettings") -> None:
        super().__init__()
        self.width, self.reach = settings.hidden, settings.reach
        self.outside = nn.Parameter(torch.randn(inputs))
        self.hidden = nn.Linear((2 * settings.reach + 1) * inputs, settings.hidden)

    def forward(
        self, x: Float[Tensor, "b n c"], key_mask: Bool[Tensor, "b n"], record: Record | None = None
    ) -> Float[Tensor, "b n f"]:
        """As `TokenNetwork.forward`; it has no attention to record."""
        x = torch.where(key_mask[..., None], x, self.outside)
        return relu(self.hidden(windows(x, self.outside, self.reach)))


@dataclass(frozen=True)
class WindowNetworkSettings:
    """The shape of a network over windows.

    Attributes:
        reach: how many neighbours it reads on either side; with 0 it sees the token alone.
        hidden: width of the hidden layer.

    Raises:
        ValueError: a size that cannot be.
    """

    reach: int = 2
    hidden: int = 256

    def __post_init__(self) -> None:
        whole_number("reach", self.reach, 0)
        whole_number("hidden", self.hidden)

    def build(self, inputs: int) -> WindowNetwork:
        """The network for vectors of this width."""
        return WindowNetwork(inputs, self)

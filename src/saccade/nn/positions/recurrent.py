"""A recurrent network over positions: what it has read of them up to a token is added to the token.

A GRU (Cho et al. 2014) reads the sinusoids of positions 0, 1, 2, ... in turn; its output at a position is that
position's vector. Neishi and Yoshinaga (2019) put the network over the tokens instead, which must then come one after
another; over positions alone, one run serves all examples, and a text may go on anywhere. Sinusoids go in, because a
network without input soon comes to rest and then says the same everywhere.

Cost: O(n c^2) time in n steps that cannot be parallel, once for a batch; 6 c^2 + 6 c parameters.
"""

import torch
from torch import nn

from saccade.nn.positions._one_after_another import OneAfterAnother
from saccade.nn.positions.sinusoidal import sinusoids
from saccade.shapes import Float, Tensor


class Recurrent(OneAfterAnother):
    """A GRU over positions, added to the input: any length works, whatever `max_length` says."""

    def __init__(self, width: int, max_length: int) -> None:
        super().__init__()
        self.width = width
        self.cell = nn.GRU(width, width, batch_first=True)

    def vectors(self, length: int) -> Float[Tensor, "n c"]:
        """The outputs of the network, numbers between -1 and 1."""
        weight = next(self.parameters())
        with torch.autocast(weight.device.type, enabled=False):
            return self.cell(sinusoids(length, self.width).to(weight)[None])[0][0]

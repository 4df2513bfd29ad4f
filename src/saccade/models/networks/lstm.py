"""A bidirectional LSTM (Hochreiter and Schmidhuber 1997; Graves and Schmidhuber 2005): one reads on, one reads back.

Sequences are packed, so that the one that reads back begins at the last real token. Cost: linear in the length, one
token after the other.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from saccade.attention.record import Record
from saccade.errors import must_be, whole_number
from saccade.models.networks.network import TokenNetwork
from saccade.shapes import Bool, Float, Int, Tensor


def lengths(key_mask: Bool[Tensor, "b n"]) -> Int[Tensor, " b"]:
    """How many tokens each sequence has, on the CPU.

    Raises:
        ValueError: something that is no token stands before one.
    """
    found = key_mask.sum(1)
    if not torch.equal(key_mask, torch.arange(key_mask.shape[1], device=key_mask.device) < found[:, None]):
        raise ValueError(must_be("key_mask", "False only behind the last token of each sequence", "False before one"))
    return found.cpu()


class LSTMNetwork(TokenNetwork):
    """LSTMs that read in both directions; their outputs stand side by side.

    Args:
        inputs: width of the vectors that come in.
        settings: its shape.
    """

    def __init__(self, inputs: int, settings: "LSTMSettings") -> None:
        super().__init__()
        self.width = 2 * settings.hidden
        # torch warns of dropout where there is no layer behind it.
        dropout = settings.dropout if settings.layers > 1 else 0.0
        self.lstm = nn.LSTM(
            inputs, settings.hidden, settings.layers, batch_first=True, dropout=dropout, bidirectional=True
        )

    def forward(
        self, x: Float[Tensor, "b n c"], key_mask: Bool[Tensor, "b n"], record: Record | None = None
    ) -> Float[Tensor, "b n f"]:
        """As `TokenNetwork.forward`; it has no attention to record. Zeros where there is no token.

        Raises:
            ValueError: padding before a token.
        """
        # A sequence of none cannot be packed, so it is read as one zero and hidden in the end.
        x = x.masked_fill(~key_mask[..., None], 0)
        packed = pack_padded_sequence(x, lengths(key_mask).clamp(min=1), batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])
        return out.masked_fill(~key_mask[..., None], 0)


@dataclass(frozen=True)
class LSTMSettings:
    """The shape of a bidirectional LSTM.

    Attributes:
        hidden: width of each direction.
        layers: how many there are.
        dropout: share that is dropped between layers.

    Raises:
        ValueError: a size or share that cannot be.
    """

    hidden: int = 128
    layers: int = 1
    dropout: float = 0.1

    def __post_init__(self) -> None:
        whole_number("hidden", self.hidden)
        whole_number("layers", self.layers)
        if not 0 <= self.dropout < 1:
            raise ValueError(must_be("dropout", "at least 0 and below 1", self.dropout))

    def build(self, inputs: int) -> LSTMNetwork:
        """The network for vectors of this width."""
        return LSTMNetwork(inputs, self)

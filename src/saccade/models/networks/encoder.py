"""The Transformer encoder as a network over tokens: each token looks at all others, as its mechanism has it."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from saccade.attention.record import Record
from saccade.models.networks.network import TokenNetwork
from saccade.models.sizes import check_placed, check_sizes, mechanisms_of, most_positions
from saccade.nn import Encoder
from saccade.nn.positions import to_position
from saccade.shapes import Bool, Float, Tensor


class EncoderNetwork(TokenNetwork):
    """A linear layer to the model width, positions, and an encoder.

    Args:
        inputs: width of the vectors that come in.
        settings: its shape.
    """

    def __init__(self, inputs: int, settings: "TransformerSettings") -> None:
        super().__init__()
        self.width = settings.width
        self.max_length = most_positions(settings)
        self.input = nn.Linear(inputs, settings.width)
        self.position = to_position(settings.position, settings.width, settings.max_length)
        self.encoder = Encoder(
            settings.width,
            settings.heads,
            settings.layers,
            settings.hidden,
            settings.mechanism,
            settings.norm,
            settings.dropout,
            settings.activation,
            normalisation=settings.normalisation,
            position=self.position,
        )

    def forward(
        self, x: Float[Tensor, "b n c"], key_mask: Bool[Tensor, "b n"], record: Record | None = None
    ) -> Float[Tensor, "b n f"]:
        """As `TokenNetwork.forward`."""
        return self.encoder(self.position.on_input(self.input(x)), key_mask, record=record)


@dataclass(frozen=True)
class TransformerSettings:
    """The shape of an encoder over tokens.

    Attributes:
        mechanism: a name or expression for all layers, or a list of them, one a layer.
        width: the model width.
        heads: attention heads; they divide the width.
        layers: how many there are.
        hidden: width inside the feed-forward networks.
        position: a name in `saccade.nn.POSITIONS`.
        norm: where norms stand, `pre` or `post`.
        activation: of the feed-forward networks, `gelu` or `relu`.
        dropout: share that is dropped of each sublayer's output.
        max_length: the longest sequence, for positions that are learned.
        normalisation: what the norms are, a name in `saccade.nn.NORMS`.

    Raises:
        ValueError: a size, share or name that cannot be, or a position that a mechanism cannot carry.
    """

    mechanism: str | tuple[str, ...] = "full"
    width: int = 128
    heads: int = 4
    layers: int = 2
    hidden: int = 256
    position: str = "sinusoidal"
    norm: Literal["pre", "post"] = "pre"
    activation: Literal["gelu", "relu"] = "gelu"
    dropout: float = 0.1
    max_length: int = 2048
    normalisation: str = "layer"

    def __post_init__(self) -> None:
        check_sizes(self, "width", "heads", "layers", "hidden", "max_length")
        check_placed(self.position, *mechanisms_of("mechanism", self.mechanism, self.layers))

    def build(self, inputs: int) -> EncoderNetwork:
        """The network for vectors of this width."""
        return EncoderNetwork(inputs, self)

"""Networks over tokens, which models choose among by name: the Transformer, and what it is compared with.

`NETWORKS` is the list. A new one is one new file, with a `TokenNetwork` and its frozen settings, and one line here.
"""

from saccade.models.networks.encoder import TransformerSettings
from saccade.models.networks.lstm import LSTMSettings
from saccade.models.networks.network import TokenNetwork
from saccade.models.networks.window import WindowNetworkSettings

__all__ = [
    "NETWORKS",
    "LSTMSettings",
    "NetworkSettings",
    "TokenNetwork",
    "TransformerSettings",
    "WindowNetworkSettings",
]

NetworkSettings = TransformerSettings | WindowNetworkSettings | LSTMSettings

NETWORKS: dict[str, type[NetworkSettings]] = {
    "transformer": TransformerSettings,
    "window": WindowNetworkSettings,
    "lstm": LSTMSettings,
}
"""Each name with its settings, whose `build(width)` is the network."""

"""The parts of a Transformer, with any attention mechanism in them."""

from saccade.nn.multihead import MultiHeadAttention
from saccade.nn.norms import NORMS, SequenceBatchNorm
from saccade.nn.positions import POSITIONS, Position
from saccade.nn.transformer import Encoder

__all__ = ["NORMS", "POSITIONS", "Encoder", "MultiHeadAttention", "Position", "SequenceBatchNorm"]

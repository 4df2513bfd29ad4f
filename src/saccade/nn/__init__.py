"""The parts of a Transformer, with any attention mechanism in them."""

from saccade.nn.convolution import QuadraticAttention, from_conv
from saccade.nn.decoder import Decoder, DecoderState
from saccade.nn.embedding import TiedEmbedding
from saccade.nn.encoder import Encoder, EncoderState
from saccade.nn.losses import Loss, cross_entropy
from saccade.nn.multihead import AttentionState, Memory, MultiHeadAttention
from saccade.nn.norms import NORMS, SequenceBatchNorm
from saccade.nn.positions import POSITIONS, Position
from saccade.nn.transformer import Transformer

__all__ = [
    "NORMS",
    "POSITIONS",
    "AttentionState",
    "Decoder",
    "DecoderState",
    "Encoder",
    "EncoderState",
    "Loss",
    "Memory",
    "MultiHeadAttention",
    "Position",
    "QuadraticAttention",
    "SequenceBatchNorm",
    "TiedEmbedding",
    "Transformer",
    "cross_entropy",
    "from_conv",
]

"""THE LIST of mechanisms. From it follow the command line's choices, the contract tests, the sweeps and the docs.

To add a mechanism, write one file beside these and add one line here.
"""

from saccade.attention.mechanisms._names import MECHANISMS, to_mechanism
from saccade.attention.mechanisms.compressed import CompressedAttention
from saccade.attention.mechanisms.efficient import EfficientAttention
from saccade.attention.mechanisms.full import FullAttention
from saccade.attention.mechanisms.linear import LinearAttention
from saccade.attention.mechanisms.linformer import LinformerAttention
from saccade.attention.mechanisms.lsh import LshAttention
from saccade.attention.mechanisms.mixed import MixedAttention
from saccade.attention.mechanisms.performer import PerformerAttention
from saccade.attention.mechanisms.rfa import RfaAttention
from saccade.attention.mechanisms.routing import RoutingAttention
from saccade.attention.mechanisms.sinkhorn import SinkhornAttention
from saccade.attention.mechanisms.sparse import (
    BigBirdAttention,
    LocalAttention,
    LongformerAttention,
    SparseAttention,
    SparseTransformerAttention,
    StridedAttention,
)
from saccade.attention.mechanisms.synthesizer import SynthesizerAttention

MECHANISMS |= {
    "full": FullAttention,
    "sparse": SparseAttention,
    "local": LocalAttention,
    "strided": StridedAttention,
    "sparse_transformer": SparseTransformerAttention,
    "longformer": LongformerAttention,
    "big_bird": BigBirdAttention,
    "lsh": LshAttention,
    "routing": RoutingAttention,
    "sinkhorn": SinkhornAttention,
    "linformer": LinformerAttention,
    "compressed": CompressedAttention,
    "efficient": EfficientAttention,
    "linear": LinearAttention,
    "rfa": RfaAttention,
    "performer": PerformerAttention,
    "synthesizer": SynthesizerAttention,
    "mixed": MixedAttention,
}


__all__ = ["MECHANISMS", "to_mechanism"]

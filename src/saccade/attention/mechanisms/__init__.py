"""THE LIST of mechanisms. From it follow the command line's choices, the contract tests, the sweeps and the docs.

To add a mechanism, write one file beside these and add one line here.
"""

from saccade.attention.expressions import read
from saccade.attention.mechanism import Mechanism
from saccade.attention.mechanisms.full import FullAttention
from saccade.attention.mechanisms.linear import LinearAttention
from saccade.attention.mechanisms.routing import RoutingAttention
from saccade.attention.mechanisms.sparse import (
    BigBirdAttention,
    LocalAttention,
    LongformerAttention,
    SparseAttention,
    SparseTransformerAttention,
    StridedAttention,
)
from saccade.attention.patterns import PATTERNS, Pattern
from saccade.errors import must_be

MECHANISMS: dict[str, type[Mechanism]] = {
    "full": FullAttention,
    "sparse": SparseAttention,
    "local": LocalAttention,
    "strided": StridedAttention,
    "sparse_transformer": SparseTransformerAttention,
    "longformer": LongformerAttention,
    "big_bird": BigBirdAttention,
    "linear": LinearAttention,
    "routing": RoutingAttention,
}


def to_mechanism(chosen: str | Mechanism | Pattern) -> Mechanism:
    """The spec that is meant by a name, an expression, a pattern or a spec.

    Args:
        chosen: a name (`"big_bird"`), an expression (`"local(left=64)"`, `"Local(128) | Global(2)"`), a pattern, or
            a spec, which is given back.

    Raises:
        ValueError: an unknown name or option; the message lists the known ones, the nearest first.
    """
    if isinstance(chosen, str):
        own = {name: PATTERNS[name] for name in PATTERNS if name not in MECHANISMS}
        value = read(chosen, {**own, **MECHANISMS}, "mechanism")
    else:
        value = chosen
    if isinstance(value, Pattern):
        return SparseAttention(value)
    if not isinstance(value, Mechanism):
        raise ValueError(must_be("mechanism", "a name, an expression, a pattern or a spec", chosen))
    return value


__all__ = ["MECHANISMS", "to_mechanism"]

"""Which position methods work in which attention.

What is added to the input works anywhere. What turns queries and keys wants both to be read, and what changes scores
wants a softmax of them.
"""

from saccade.attention.mechanism import Mechanism
from saccade.errors import must_be
from saccade.nn.positions.position import Position


def carried(position: Position | None, mechanism: Mechanism, extra_tokens: int = 0) -> Position | None:
    """The method, if layers of attention have something to do for it.

    Args:
        position: the method, if there is one.
        mechanism: of the layer.
        extra_tokens: learned tokens in front of the sequence.

    Raises:
        ValueError: as `check_carried`.
    """
    if position is None or not position.in_attention():
        return None
    check_carried(type(position), mechanism, extra_tokens)
    return position


def check_carried(kind: type[Position], mechanism: Mechanism, extra_tokens: int = 0) -> None:
    """Refuse a mechanism that cannot do what a position method asks of it. Arguments as of `carried`.

    Raises:
        ValueError: the message says what would work.
    """
    if not kind.in_attention():
        return
    name, claims, reads = kind.__name__, mechanism.claims, mechanism.inputs
    if extra_tokens:
        constraint = f"0 for {name} positions, as extra tokens have no distance from anything"
        raise ValueError(must_be("extra_tokens", constraint, extra_tokens))
    if kind.in_scores() and not claims.exact:
        constraint = f"full, a pattern or another that claims exact, as {name} positions add to scores"
        raise ValueError(must_be("mechanism", constraint, str(mechanism)))
    if "q" not in reads or not ("k" in reads or claims.shared_qk):
        constraint = f"one that reads queries and keys, as {name} positions move both"
        raise ValueError(must_be("mechanism", constraint, str(mechanism)))

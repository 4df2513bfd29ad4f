"""What a name means: THE LIST, which the package fills, and how names and expressions are read.

A file of its own, so that a mechanism that is made of others can read their names.
"""

from collections import ChainMap
from collections.abc import Callable
from typing import Any, cast

from saccade.attention.expressions import read
from saccade.attention.mechanism import Mechanism
from saccade.attention.patterns import PATTERNS, Pattern
from saccade.attention.plug_ins import Mechanisms
from saccade.errors import must_be

MECHANISMS = Mechanisms()
"""Name and spec of every mechanism, those of other packages behind our own."""

_CALLABLE: ChainMap[str, Any] = ChainMap(MECHANISMS, PATTERNS)  # pyright: ignore[reportArgumentType] - it is read only


def to_mechanism(chosen: str | Mechanism | Pattern) -> Mechanism:
    """The spec that is meant by a name, an expression, a pattern or a spec.

    Args:
        chosen: a name (`"big_bird"`), an expression (`"local(left=64)"`, `"Local(128) | Global(2)"`), a pattern, or
            a spec, which is given back.

    Raises:
        ValueError: an unknown name or option; the message lists the known ones, the nearest first. Or a plug-in that
            cannot be used; the message says why.
    """
    if isinstance(chosen, str):
        value = read(chosen, _CALLABLE, "mechanism")
    else:
        value = chosen
    if isinstance(value, Pattern):
        return cast(Callable[[Pattern], Mechanism], MECHANISMS["sparse"])(value)
    if not isinstance(value, Mechanism):
        raise ValueError(must_be("mechanism", "a name, an expression, a pattern or a spec", chosen))
    return value

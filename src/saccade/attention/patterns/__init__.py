"""Who may look at whom: patterns, one idea a file. `PATTERNS` is the list; a new pattern is one line here."""

from collections.abc import Callable

from saccade.attention.expressions import read
from saccade.attention.patterns.axial import Axial
from saccade.attention.patterns.combined import Intersection, Union
from saccade.attention.patterns.edges import Edges
from saccade.attention.patterns.global_tokens import Global
from saccade.attention.patterns.grid import Grid
from saccade.attention.patterns.local import Causal, Full, Local, Nothing
from saccade.attention.patterns.pattern import Bound, Pairs, Pattern, Scope
from saccade.attention.patterns.per_head import PerHead
from saccade.attention.patterns.presets import big_bird, longformer, sparse_transformer
from saccade.attention.patterns.random_blocks import Random
from saccade.attention.patterns.segments import Segments
from saccade.attention.patterns.shifted import Shifted
from saccade.attention.patterns.strided import Strided
from saccade.errors import must_be

PATTERNS: dict[str, Callable[..., Pattern]] = {
    "Full": Full,
    "Causal": Causal,
    "Local": Local,
    "Strided": Strided,
    "Global": Global,
    "Random": Random,
    "Grid": Grid,
    "Axial": Axial,
    "Edges": Edges,
    "Segments": Segments,
    "PerHead": PerHead,
    "Shifted": Shifted,
    "Nothing": Nothing,
    "longformer": longformer,
    "big_bird": big_bird,
    "sparse_transformer": sparse_transformer,
}


def parse(text: str) -> Pattern:
    """The pattern that an expression describes, such as `"Local(128) | Global(2)"`: the inverse of `repr`.

    Raises:
        ValueError: the text is no expression, or names what is no pattern.
    """
    pattern = read(text, PATTERNS, "pattern")
    if not isinstance(pattern, Pattern):
        raise ValueError(must_be("pattern", "an expression such as 'Local(128) | Global(2)'", text))
    return pattern


__all__ = [
    "PATTERNS",
    "Axial",
    "Bound",
    "Causal",
    "Edges",
    "Full",
    "Global",
    "Grid",
    "Intersection",
    "Local",
    "Nothing",
    "Pairs",
    "Pattern",
    "PerHead",
    "Random",
    "Scope",
    "Segments",
    "Shifted",
    "Strided",
    "Union",
    "big_bird",
    "longformer",
    "parse",
    "sparse_transformer",
]

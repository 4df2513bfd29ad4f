"""Who may look at whom: patterns, one idea a file. `PATTERNS` is the list; a new pattern is one line here."""

from collections.abc import Callable

from saccade.attention.expressions import read
from saccade.attention.patterns.global_tokens import Global
from saccade.attention.patterns.local import Causal, Full, Local
from saccade.attention.patterns.pattern import Bound, Pairs, Pattern, Scope
from saccade.attention.patterns.presets import big_bird, longformer, sparse_transformer
from saccade.attention.patterns.random_blocks import Random
from saccade.attention.patterns.strided import Strided
from saccade.errors import must_be

PATTERNS: dict[str, Callable[..., Pattern]] = {
    "Full": Full,
    "Causal": Causal,
    "Local": Local,
    "Strided": Strided,
    "Global": Global,
    "Random": Random,
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
    "Bound",
    "Causal",
    "Full",
    "Global",
    "Local",
    "Pairs",
    "Pattern",
    "Random",
    "Scope",
    "Strided",
    "big_bird",
    "longformer",
    "parse",
    "sparse_transformer",
]

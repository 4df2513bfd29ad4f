"""ListOps: what is the value of `[MAX 2 9 [MIN 4 7 ] 0 ]`, with brackets nested over hundreds of tokens.

Sources: Nangia & Bowman 2018, "ListOps"; the long form is that of Tay et al. 2021, "Long Range Arena" (LRA), whose
grammar this file follows: an argument is an operation with probability 1/4 and else a digit, an operation has 2 to
10 arguments, and the round brackets of the binary tree, which carry nothing, are left out. Two differences from
LRA: both ends of the range of lengths are included, and an expression is given up as soon as it is too long, which
changes no probability but saves drawing trees of many thousand tokens. Time: about 1 ms an expression.
"""

import random
from collections.abc import Callable, Iterator

import torch

from saccade.data.labelled import LabelledData, Split
from saccade.data.settings import DataSettings
from saccade.data.splitting import rank
from saccade.data.vocabulary import SymbolVocabulary
from saccade.errors import must_be

END = "]"
DIGITS = "0123456789"
# Draws without a new expression after which there is none to be found; LRA's lengths need three on average.
PATIENCE = 20_000


def median(values: list[int]) -> int:
    """The middle value, or the mean of the two middle ones rounded down."""
    ordered = sorted(values)
    return (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) // 2


def sum_modulo_10(values: list[int]) -> int:
    """The last digit of the sum."""
    return sum(values) % 10


OPERATIONS: dict[str, Callable[[list[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": median,
    "[SM": sum_modulo_10,
}
OPERATORS = tuple(OPERATIONS)
VOCABULARY = SymbolVocabulary((*OPERATORS, END, *DIGITS))
# A draw from this urn is an operator with probability 20 / 80 = 1/4, all four alike, or else any digit.
ARGUMENTS = OPERATORS * 5 + tuple(DIGITS) * 6


class TooLong(Exception):  # noqa: N818 - a step of the drawing, not an error
    """The expression that is being drawn has more tokens than allowed."""


def load(settings: DataSettings) -> LabelledData:
    """Draw the three splits; no expression comes twice, neither in a split nor in two.

    Raises:
        ValueError: if there are not so many different expressions of these lengths.
    """
    drawn = expressions(settings)
    return LabelledData(
        name="listops",
        vocabulary=VOCABULARY,
        classes=tuple(DIGITS),
        train=_take(drawn, settings.train_size),
        validation=_take(drawn, settings.validation_size),
        test=_take(drawn, settings.test_size),
        origin={"expression": f"{settings.min_length:,} to {settings.max_length:,} tokens"},
    )


def expressions(settings: DataSettings) -> Iterator[tuple[str, int]]:
    """Different expressions without end, each with its value."""
    draw = random.Random(f"listops {settings.seed}")
    seen: set[bytes] = set()
    failures = 0
    while failures < PATIENCE:
        failures += 1
        tokens: list[str] = []
        try:
            value = grow(tokens, draw.choice(OPERATORS), 1, draw, settings)
        except TooLong:
            continue
        expression = " ".join(tokens)
        digest = rank(settings.seed, expression.encode())
        if len(tokens) >= settings.min_length and digest not in seen:
            seen.add(digest)
            failures = 0
            yield expression, value
    sizes = settings.train_size + settings.validation_size + settings.test_size
    lengths = f"{settings.min_length} to {settings.max_length} tokens and depth {settings.max_depth}"
    raise ValueError(must_be(f"listops with {lengths}", f"{sizes:,} different expressions", len(seen)))


def grow(tokens: list[str], operator: str, depth: int, draw: random.Random, settings: DataSettings) -> int:
    """Draw one operation with all that is nested in it.

    Args:
        tokens: the expression so far, to which the operation is added.
        operator: its first token.
        depth: how deep it stands; the outermost operation stands at 1.
        draw: where the arguments come from.
        settings: the limits.

    Returns:
        The value of the operation.

    Raises:
        TooLong: as soon as there are more tokens than allowed.
    """
    tokens.append(operator)
    urn = ARGUMENTS if depth + 1 < settings.max_depth else DIGITS
    values = []
    for argument in draw.choices(urn, k=draw.randint(2, settings.max_arguments)):
        if argument in OPERATIONS:
            values.append(grow(tokens, argument, depth + 1, draw, settings))
        else:
            tokens.append(argument)
            values.append(int(argument))
    tokens.append(END)
    if len(tokens) > settings.max_length:
        raise TooLong
    return OPERATIONS[operator](values)


def _take(drawn: Iterator[tuple[str, int]], size: int) -> Split:
    """The next expressions as a split."""
    taken = [next(drawn) for _ in range(size)]
    return Split(tuple(VOCABULARY.encode(text) for text, _ in taken), torch.tensor([value for _, value in taken]))

"""What a user chooses to look at, read from text: mechanisms and lengths."""

from collections.abc import Sequence

from saccade.attention import Mechanism, to_mechanism
from saccade.errors import must_be

BASELINE = "full"
"""Dense attention, next to which speeds are given."""


def read_mechanisms(mechanisms: str | Sequence[str], baseline: bool = True) -> list[Mechanism]:
    """The specs that are meant, the baseline first where it is wanted and not among them.

    Args:
        mechanisms: names or expressions, in a list or with commas between them.
        baseline: whether dense attention has to be among them.

    Raises:
        ValueError: none, an unknown one, or one twice.
    """
    texts = [mechanisms] if isinstance(mechanisms, str) else mechanisms
    specs = [to_mechanism(part) for text in texts for part in split_list(text)]
    if not specs or len(set(specs)) < len(specs):
        raise ValueError(must_be("mechanisms", "at least one, and each only once", ", ".join(map(str, specs))))
    dense = to_mechanism(BASELINE)
    return specs if not baseline or dense in specs else [dense, *specs]


def split_list(text: str) -> list[str]:
    """The parts between commas; commas within brackets separate nothing."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def read_lengths(text: str) -> tuple[int, ...]:
    """Lengths with commas between them, from the shortest to the longest.

    Raises:
        ValueError: none, one twice, or something that is no whole number from 1.
    """
    parts = split_list(text)
    # As Python writes numbers, so that 8_192 may be written for 8192.
    if not parts or not all(part.replace("_", "").isascii() and part.replace("_", "").isdigit() for part in parts):
        raise ValueError(must_be("lengths", "whole numbers with commas between them, such as 512,1024", text))
    lengths = [int(part.replace("_", "")) for part in parts]
    check_lengths(lengths)
    return tuple(sorted(lengths))


def check_lengths(lengths: Sequence[int]) -> None:
    """Refuse lengths that nothing can be measured at.

    Raises:
        ValueError: none, one below 1, or one twice.
    """
    if not lengths or min(lengths) < 1 or len(set(lengths)) < len(lengths):
        raise ValueError(must_be("lengths", "at least one, each at least 1 and each only once", list(lengths)))

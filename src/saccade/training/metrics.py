"""Scores and how much of them is chance."""

import math

from saccade.errors import must_be
from saccade.shapes import Int, Tensor

SHARES = (
    *("accuracy", "half_width", "majority_share", "majority_accuracy", "unknown_share", "unknown_accuracy"),
    *("f1", "precision", "recall", "per", "word_error"),
)
"""Scores that are shares, from 0 to 1, and are shown as percentages."""


def is_share(name: str) -> bool:
    """Whether a score is a share; that of one side alone, such as a language, has the side behind its name."""
    return any(name == share or name.startswith(f"{share}_") for share in SHARES)


def accuracy(predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"]) -> float:
    """The share of predictions that equal their label.

    Raises:
        ValueError: there are no predictions, or another number of labels.
    """
    if len(predicted) == 0 or len(predicted) != len(labels):
        raise ValueError(must_be("predicted", f"as long as the {len(labels)} labels", len(predicted)))
    return (predicted == labels).double().mean().item()


def half_width(accuracy: float, count: int, z: float = 1.96) -> float:
    """Half the confidence interval of an accuracy measured on `count` independent examples.

    Wilson's score interval (1927), which unlike the plain standard error does not vanish at 0 and 1. Two
    scores on examples of their own that differ by less than both half-widths together are within noise.

    Args:
        accuracy: a share, from 0 to 1.
        count: the number of examples, at least 1.
        z: standard deviations on either side; 1.96 covers 95 %, 1 is the standard error.

    Raises:
        ValueError: an accuracy outside 0 to 1, or no example.
    """
    if not 0 <= accuracy <= 1:
        raise ValueError(must_be("accuracy", "from 0 to 1", accuracy))
    if count < 1:
        raise ValueError(must_be("count", "at least 1", count))
    spread = accuracy * (1 - accuracy) / count + z**2 / (4 * count**2)
    return z * math.sqrt(spread) / (1 + z**2 / count)

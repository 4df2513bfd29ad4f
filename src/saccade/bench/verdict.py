"""The sentence at the end of a comparison: what to choose, and what the numbers allow to say.

All mechanisms labelled the same test examples, so two scores are compared example by example: the difference has a
standard error of its own (McNemar 1947), smaller than that of two separate samples. As the best is compared with
every other, the 95 % are shared among the comparisons (Bonferroni). It is the test set's chance alone: how much
another seed of training would change is not in it, and one seed cannot tell.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from saccade.bench.measure import speed_ratio
from saccade.bench.report import Comparison, Row, join
from saccade.errors import must_be
from saccade.shapes import Bool, Tensor

CONFIDENCE = 0.95
MEMORY_MARGIN = 1.1
"""By how much the memory of two must differ before a sentence speaks of it."""


@dataclass(frozen=True)
class Difference:
    """How much more of the same examples one mechanism labels right than another.

    Attributes:
        value: the difference of the two accuracies.
        low: lower end of its confidence interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether chance alone could make it."""
        return self.low <= 0 <= self.high


def difference(mine: Bool[Tensor, " n"], theirs: Bool[Tensor, " n"], comparisons: int = 1) -> Difference:
    """The difference of two accuracies on the same examples, with a confidence interval.

    Args:
        mine: for each example, whether one of the two was right.
        theirs: the same for the other.
        comparisons: how many such intervals share the confidence.

    Raises:
        ValueError: fewer than two examples.
    """
    if len(mine) < 2:
        raise ValueError(must_be("examples", "at least 2", len(mine)))
    gaps = mine.double() - theirs.double()
    value, error = gaps.mean().item(), gaps.std().item() / math.sqrt(len(gaps))
    reach = _critical(comparisons) * error
    return Difference(value, value - reach, value + reach)


def verdict(found: Comparison) -> str:
    """One sentence: the choice and its reason, or why there is none."""
    done = [row for row in found.rows if row.right is not None]
    if not done:
        return "There is nothing to choose from: no mechanism was trained to the end."
    if len(done) == 1:
        return f"There is nothing to compare: only {join([done[0].mechanism])} was trained to the end."
    best = max(done, key=lambda row: row.accuracy)
    # Each score is its own comparison with guessing, and the best was picked among them.
    if best.accuracy - _critical(len(done)) * best.standard_error <= found.majority_share:
        return (
            f"I would not choose yet: no score is above always guessing the commonest class "
            f"({found.majority_share:.1%}) by more than noise; train for more steps or on more data."
        )
    others = [row for row in done if row is not best]
    level = [row for row in others if _gap(best, row, len(others)).is_noise]
    return _by_speed(found, best, [best, *level]) if level else _by_score(found, best, others)


def _by_score(found: Comparison, best: Row, others: Sequence[Row]) -> str:
    """The best score is ahead of all others by more than noise."""
    second = max(others, key=lambda row: row.accuracy)
    gap = _gap(best, second, len(others))
    sentence = (
        f"I would choose {join([best.mechanism])}: {best.accuracy:.1%} of the test examples right, "
        f"{_points(gap.value)} points (95% interval {_points(gap.low)} to {_points(gap.high)}) more than "
        f"{join([second.mechanism])}, the next"
    )
    fastest = max(others, key=lambda row: row.steps_per_second)
    ratio = speed_ratio(fastest.step_seconds, best.step_seconds)
    if ratio.value > 1 and not ratio.is_noise:
        behind = _points(best.accuracy - fastest.accuracy)
        return (
            f"{sentence}; {join([fastest.mechanism])} trains {ratio.value:.1f}x as fast, but is {behind} points behind."
        )
    return f"{sentence}, and none of the others trains faster by more than noise."


def _by_speed(found: Comparison, best: Row, level: Sequence[Row]) -> str:
    """Some scores are within noise of the best, so the fastest of these is the choice, if there is one."""
    names = join([row.mechanism for row in found.rows if row in level])
    reason = f"the scores of {names} are within noise of the best ({best.accuracy:.1%})"
    fastest = max(level, key=lambda row: row.steps_per_second)
    slower = [row for row in level if row is not fastest]
    rivals = [row for row in slower if speed_ratio(fastest.step_seconds, row.step_seconds).is_noise]
    if not rivals:
        return (
            f"I would choose {join([fastest.mechanism])}: {reason}, so speed decides: {_lead(found, fastest, slower)}."
        )
    tied = [fastest, *rivals]
    either = join([row.mechanism for row in found.rows if row in tied])
    return f"I would take either of {either}: {reason}, and among them the speeds of these are too{_memory(tied)}."


def _lead(found: Comparison, fastest: Row, slower: Sequence[Row]) -> str:
    ratio = found.speed(fastest)
    if ratio is not None and fastest.mechanism != found.baseline:
        return f"it is the fastest of them, {ratio.value:.1f}x as fast as `{found.baseline}`"
    second = max(slower, key=lambda row: row.steps_per_second)
    ahead = speed_ratio(fastest.step_seconds, second.step_seconds)
    return f"it is the fastest of them, {ahead.value:.1f}x as fast as {join([second.mechanism])}, the next"


def _memory(tied: Sequence[Row]) -> str:
    measured = sorted((row.peak_bytes, row.mechanism) for row in tied if row.peak_bytes is not None)
    if len(measured) < 2 or measured[1][0] < MEMORY_MARGIN * measured[0][0]:
        return ""
    (least, name), (most, _) = measured[0], measured[-1]
    return f"; {join([name])} takes the least memory ({least / 1e6:.0f} MB, against up to {most / 1e6:.0f} MB)"


def _gap(best: Row, other: Row, comparisons: int) -> Difference:
    assert best.right is not None
    assert other.right is not None
    return difference(best.right, other.right, comparisons)


def _critical(comparisons: int) -> float:
    """How many standard errors the confidence takes."""
    return NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / 2 / comparisons)


def _points(share: float) -> str:
    return f"{share * 100:.1f}"

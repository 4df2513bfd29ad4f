"""What the records of a sweep say of each mechanism on a task: scores over seeds, and speed and memory beside dense.

A score has two sources of chance: which test examples there are, and which seed the training had. The first is the
standard error of a share; it does not shrink with seeds, as all are scored on the same examples. The second is the
spread over seeds, which is pooled over the mechanisms of a task, as three seeds of one tell little.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, variance

from saccade.bench.measure import Ratio, speed_ratio
from saccade.bench.sweep.plan import Cell, Plan
from saccade.bench.sweep.records import DONE, Record, Records
from saccade.training import half_width

SURE = 2.0
"""Standard errors by which two scores must differ before the page calls them different."""


@dataclass(frozen=True)
class Standing:
    """One mechanism on one task.

    Attributes:
        mechanism: its expression.
        scores: test accuracy from each seed that was trained to the end.
        validation: their mean validation accuracy; NaN without scores.
        examples: how many test examples there were.
        majority: test accuracy of always guessing the commonest class.
        parameters: trained numbers of the model; 0 where it is not known.
        speed: the record of speed and memory, if there is one.
        trouble: why something is missing, in words.
    """

    mechanism: str
    scores: tuple[float, ...] = ()
    validation: float = math.nan
    examples: int = 0
    majority: float = math.nan
    parameters: int = 0
    speed: Record | None = None
    trouble: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """Mean over seeds; NaN where none was trained to the end."""
        return fmean(self.scores) if self.scores else math.nan

    @property
    def steps_per_second(self) -> float:
        """Training steps; NaN where speed was not measured."""
        return 1 / median(self.speed["step_seconds"]) if self.speed else math.nan

    @property
    def training(self) -> Ratio | None:
        """Training speed, dense attention being 1."""
        return self.ratio("step")

    @property
    def inference(self) -> Ratio | None:
        """Speed of a forward pass, dense attention being 1."""
        return self.ratio("inference")

    def ratio(self, what: str) -> Ratio | None:
        """Speed of `step` or `inference` in the rounds that it shared with dense attention."""
        if self.speed is None:
            return None
        return speed_ratio(self.speed[f"{what}_seconds"], self.speed[f"dense_{what}_seconds"])

    @property
    def memory(self) -> float:
        """Peak memory of training, dense attention being 1; NaN where it is not known."""
        known = self.speed and self.speed["peak_bytes"] and self.speed["dense_peak_bytes"]
        return self.speed["peak_bytes"] / self.speed["dense_peak_bytes"] if self.speed and known else math.nan


def standings(plan: Plan, records: Records, task: str) -> list[Standing]:
    """Every mechanism that a task has a record of, the best mean score first and what has none last."""
    seeds = list(dict.fromkeys([*plan.frame.seeds, *plan.frame.best_seeds]))
    mechanisms = dict.fromkeys([*plan.mechanisms, *(cell.mechanism for cell in records)])
    found = [_standing(records, task, mechanism, seeds) for mechanism in mechanisms]
    known = [each for each in found if each.scores or each.speed or each.trouble]
    return sorted(known, key=lambda each: -each.score if each.scores else math.inf)


def pooled_spread(rows: Sequence[Standing]) -> float | None:
    """Standard deviation over seeds, the same for all mechanisms; `None` where none has two seeds."""
    several = [(variance(row.scores), len(row.scores) - 1) for row in rows if len(row.scores) > 1]
    freedom = sum(count for _, count in several)
    return math.sqrt(math.fsum(each * count for each, count in several) / freedom) if several else None


def error(row: Standing, spread: float | None) -> float:
    """Standard error of a mean score, of examples and seeds."""
    return math.hypot(half_width(row.score, row.examples, z=1.0), (spread or 0.0) / math.sqrt(len(row.scores)))


def beyond(row: Standing, other: Standing, spread: float | None) -> int:
    """1 if a score is above another by more than chance, -1 if below, else 0.

    That both are scored on the same examples makes the true error smaller: this errs on the side of 0.
    """
    gap = row.score - other.score
    return 0 if abs(gap) <= SURE * math.hypot(error(row, spread), error(other, spread)) else int(math.copysign(1, gap))


def above_guessing(row: Standing, spread: float | None) -> bool:
    """Whether a score is above always guessing the commonest class by more than chance."""
    return row.score - SURE * error(row, spread) > row.majority


def _standing(records: Records, task: str, mechanism: str, seeds: Sequence[int]) -> Standing:
    trained = [records[cell] for seed in seeds if (cell := Cell(task, mechanism, seed)) in records]
    done = [record for record in trained if record["status"] == DONE]
    speed = records.get(Cell(task, mechanism, None))
    lost = [each for each in (*trained, speed) if each and each["status"] != DONE]
    first = done[0] if done else {}
    return Standing(
        mechanism,
        tuple(record["test_accuracy"] for record in done),
        fmean(record["validation_accuracy"] for record in done) if done else math.nan,
        first.get("test_examples", 0),
        first.get("majority_share", math.nan),
        first.get("parameters", 0),
        speed if speed and speed["status"] == DONE else None,
        tuple(dict.fromkeys(f"{each['status']}: {each['reason']}" for each in lost)),
    )

"""Who reaches the second stage of a sweep: the best by validation. The test examples have no say in it."""

from statistics import mean

from saccade.bench.choice import BASELINE
from saccade.bench.sweep.plan import Plan
from saccade.bench.sweep.records import DONE, Records, waiting


def validation_scores(plan: Plan, records: Records) -> dict[str, float]:
    """The mean validation accuracy over tasks and seeds of the first stage, of mechanisms that failed nowhere in it.

    Dense attention is left out: it is trained again in any case.
    """
    found: dict[str, float] = {}
    for mechanism in plan.mechanisms:
        own = [records.get(cell, {}) for cell in plan.first() if cell.mechanism == mechanism]
        if own and mechanism != BASELINE and all(record.get("status") == DONE for record in own):
            found[mechanism] = mean(record["validation_accuracy"] for record in own)
    return found


def best(plan: Plan, records: Records) -> list[str] | None:
    """The best mechanisms, the best first; `None` while a training of the first stage has still to be made.

    Of equal scores the one that the plan names first is the better. What failed is out of the race.
    """
    if waiting(plan, plan.first(), records):
        return None
    scores = validation_scores(plan, records)
    return sorted(scores, key=lambda name: -scores[name])[: plan.frame.best]

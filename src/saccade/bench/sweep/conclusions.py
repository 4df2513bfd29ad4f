"""What the numbers of a sweep allow to say, computed from them, and what no number of this size can."""

from collections.abc import Sequence

from saccade.bench.choice import BASELINE
from saccade.bench.report import join
from saccade.bench.sweep.plan import Plan
from saccade.bench.sweep.standing import SURE, Standing, above_guessing, beyond, error, pooled_spread

NEVER = """\
- **Not which mechanism is good in general.** Every model here is small, is trained from random weights and sees
  a few thousand sequences. Amos et al. (2024, "Never Train from Scratch") show that pretraining on the task's own
  sequences closes most of the gaps between mechanisms that the Long Range Arena found with such training. A gap here
  says how soon a mechanism learns, with these options, not how well it could do.
- **Nothing about other options.** One width, one learning rate and one set of options for each mechanism, none of
  them tuned. Dense attention was not tuned either.
- **Nothing about other lengths or machines.** Speeds and memory belong to these lengths, batches and threads, and
  to this machine: `saccade bench` and `saccade compare` tell those of yours.
- **Not the last word on a row with one seed.** Its spread is taken from the rows that have more."""


def of_task(rows: Sequence[Standing]) -> list[str]:
    """Sentences about one task, each held by its numbers."""
    scored = [row for row in rows if row.scores]
    if not scored:
        return ["Nothing was trained to the end."]
    return [_chance(scored), _guessing(scored), *_against_dense(scored), *_cost(rows)]


def of_choice(plan: Plan, chosen: Sequence[str] | None) -> str:
    """Who went on to the second stage."""
    tasks = " and ".join(plan.tasks("all"))
    if chosen is None:
        return "The second stage has not begun: the first is not done."
    return f"By mean validation accuracy on {tasks}, {join(list(chosen))} went on to the second stage, with `full`."


def _chance(rows: Sequence[Standing]) -> str:
    """How far chance alone moves a score."""
    spread, examples = pooled_spread(rows), rows[0].examples
    widest = max(error(row, spread) for row in rows)
    seeds = "no row has two seeds, so that theirs is not known" if spread is None else f"seeds {_points(spread)}"
    return (
        f"{examples:,} test examples: the standard error of a score is up to {_points(widest)} points "
        f"(examples and seeds together; {seeds}{'' if spread is None else ' points'})."
    )


def _guessing(rows: Sequence[Standing]) -> str:
    spread, majority = pooled_spread(rows), rows[0].majority
    learned = [row.mechanism for row in rows if above_guessing(row, spread)]
    guess = f"always guessing the commonest class ({majority:.1%}) by more than {SURE:g} standard errors"
    if not learned:
        return f"No score is above {guess}: this task says nothing about the quality of any mechanism."
    if len(learned) == len(rows):
        return f"Every score is above {guess}."
    return f"{len(learned)} of {len(rows)} scores are above {guess}; not so {join(_others(rows, learned))}."


def _against_dense(rows: Sequence[Standing]) -> list[str]:
    spread = pooled_spread(rows)
    dense = next((row for row in rows if row.mechanism == BASELINE), None)
    others = [row for row in rows if row.mechanism != BASELINE]
    if dense is None or not others:
        return []
    sides = {side: [row.mechanism for row in others if beyond(row, dense, spread) == side] for side in (1, -1)}
    parts = [f"{join(found)} {word}" for found, word in ((sides[1], "above"), (sides[-1], "below")) if found]
    rest = len(others) - len(sides[1]) - len(sides[-1])
    said = "; ".join(parts) or "none"
    return [
        f"Differences from dense attention beyond {SURE:g} standard errors: {said}. For the other {rest} of "
        f"{len(others)} none is shown. Of so many comparisons about {0.05 * len(others):.1f} pass by chance."
    ]


def _cost(rows: Sequence[Standing]) -> list[str]:
    measured = [(row, row.training) for row in rows if row.mechanism != BASELINE]
    known = sorted(((ratio, row) for row, ratio in measured if ratio), key=lambda each: -each[0].value)
    if not known:
        return []
    faster = [row for ratio, row in known if ratio.low > 1]
    slower = [row.mechanism for ratio, row in known if ratio.high < 1]
    text = f"{len(faster)} of {len(known)} train faster than dense attention beyond noise"
    if faster:
        text += f", {join([known[0][1].mechanism])} the most ({known[0][0].value:.1f} times)"
    text += f"; slower: {join(slower)}." if slower else "; none is slower."
    least = min((row for _, row in known), key=lambda row: row.memory)
    if least.memory < 1:
        text += f" {join([least.mechanism])} takes the least memory ({least.memory:.2f} of dense attention's)."
    return [text]


def _others(rows: Sequence[Standing], known: Sequence[str]) -> list[str]:
    return [row.mechanism for row in rows if row.mechanism not in known]


def _points(share: float) -> str:
    return f"{share * 100:.1f}"

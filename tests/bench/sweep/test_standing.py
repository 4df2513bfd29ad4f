import math

import pytest

from saccade.bench.sweep.conclusions import of_choice, of_task
from saccade.bench.sweep.standing import Standing, above_guessing, beyond, error, pooled_spread, standings
from saccade.training import half_width


def row(mechanism, *scores, examples=400, majority=0.25, speed=None):
    return Standing(mechanism, scores, 0.5, examples, majority, 1, speed)


def pace(seconds, dense=1.0, peak=4):
    turns = [1.0, 1.01, 0.99, 1.0, 1.0, 1.02, 0.98]
    return {
        "step_seconds": [seconds * turn for turn in turns],
        "dense_step_seconds": [dense] * 7,
        "inference_seconds": [seconds / 4] * 7,
        "dense_inference_seconds": [dense / 2] * 7,
        "peak_bytes": peak,
        "dense_peak_bytes": 4,
    }


def test_standings_are_what_the_records_say(plan, made):
    records = dict(
        [
            made("letters", "full", test=0.4),
            made("letters", "linear", 0, test=0.5, validation=0.3),
            made("letters", "linear", 1, test=0.7, validation=0.5),
            made("letters", "linear", None, seconds=0.5, dense=2.0, peak=10**6),
            made("letters", "local(left=2)", status="failed"),
            made("more", "linear", test=0.9),
        ]
    )
    linear, full, local = standings(plan, records, "letters")
    assert (linear.mechanism, linear.scores, linear.score) == ("linear", (0.5, 0.7), pytest.approx(0.6))
    assert linear.validation == pytest.approx(0.4)
    assert (linear.examples, linear.majority, linear.parameters) == (400, 0.25, 1234)
    assert linear.steps_per_second == 2
    assert (linear.training.value, linear.inference.value, linear.memory) == (4, 8, 0.25)
    assert (full.scores, full.training) == ((0.4,), None)
    assert math.isnan(full.memory)
    assert (local.scores, local.trouble) == ((), ("failed: ValueError: no",))


def test_the_spread_over_seeds_is_pooled():
    rows = [row("a", 0.5, 0.6, 0.7), row("b", 0.2, 0.2), row("c", 0.9)]
    # Variances 0.01 with two degrees of freedom and 0 with one.
    assert pooled_spread(rows) == pytest.approx(math.sqrt(0.02 / 3))
    assert pooled_spread([row("a", 0.5)]) is None


def test_the_error_of_a_score_is_of_examples_and_seeds():
    examples = half_width(0.5, 400, z=1.0)
    assert error(row("a", 0.5), None) == pytest.approx(examples)
    assert error(row("a", 0.4, 0.5, 0.6), 0.1) == pytest.approx(math.sqrt(examples**2 + 0.1**2 / 3))


def test_a_difference_within_two_standard_errors_is_none():
    # Each has a standard error of 2.5 points, so the difference of both one of 3.5.
    assert beyond(row("a", 0.56), row("b", 0.5), None) == 0
    assert beyond(row("a", 0.58), row("b", 0.5), None) == 1
    assert beyond(row("a", 0.5), row("b", 0.58), None) == -1
    assert beyond(row("a", 0.58), row("b", 0.5), 0.1) == 0
    assert above_guessing(row("a", 0.31), None)
    assert not above_guessing(row("a", 0.29), None)


def test_sentences_follow_the_numbers():
    rows = [
        row("better", 0.8, speed=pace(0.5, peak=2)),
        row("same", 0.52, speed=pace(2.0)),
        row("full", 0.5, speed=pace(1.0)),
        row("worse", 0.3, speed=pace(1.0)),
    ]
    chance, guessing, against, cost = of_task(rows)
    assert "400 test examples" in chance
    assert "up to 2.5 points" in chance
    assert "3 of 4" not in guessing
    assert "Every score is above always guessing the commonest class (25.0%)" in guessing
    assert "`better` above; `worse` below" in against
    assert "For the other 1 of 3 none is shown" in against
    assert "1 of 3 train faster" in cost
    assert "`better` the most (2.0 times); slower: `same`" in cost
    assert "`better` takes the least memory (0.50 of" in cost


def test_sentences_say_what_is_not_known():
    (nothing,) = of_task([])
    assert nothing == "Nothing was trained to the end."
    _, guessing, against = of_task([row("full", 0.26), row("linear", 0.25)])
    assert "this task says nothing about the quality of any mechanism" in guessing
    assert "none. For the other 1 of 1 none is shown" in against
    _, guessing = of_task([row("linear", 0.5), row("local", 0.2)])
    assert "1 of 2 scores are above" in guessing
    assert "not so `local`" in guessing


def test_who_went_on(plan):
    assert "`linear` and `lsh` went on" in of_choice(plan, ["linear", "lsh"])
    assert "has not begun" in of_choice(plan, None)

import math
from statistics import NormalDist

import pytest
import torch
from rows import comparison, row

from saccade.bench.report import Row
from saccade.bench.verdict import difference, verdict


def test_difference_is_paired():
    mine, theirs = torch.zeros(2, 100, dtype=torch.bool)
    mine[:60] = True
    theirs[:50] = True
    found = difference(mine, theirs)
    # Ten gaps of one and ninety of none.
    error = math.sqrt((10 * 0.9**2 + 90 * 0.1**2) / 99 / 100)
    assert found.value == pytest.approx(0.1)
    assert found.high - found.value == pytest.approx(1.959964 * error)
    assert found.value - found.low == pytest.approx(1.959964 * error)
    assert not found.is_noise


def test_more_comparisons_share_the_confidence():
    mine, theirs = torch.rand(2, 101, generator=torch.Generator().manual_seed(0)) > 0.5
    alone, shared = difference(mine, theirs), difference(mine, theirs, comparisons=5)
    reach = NormalDist().inv_cdf(0.995) / NormalDist().inv_cdf(0.975)
    assert shared.high - shared.value == pytest.approx(reach * (alone.high - alone.value))


def test_equal_answers_differ_by_noise():
    answers = torch.tensor([True, False, True])
    assert difference(answers, answers).is_noise
    with pytest.raises(ValueError, match="examples must be at least 2, got 1"):
        difference(answers[:1], answers[:1])


def test_a_clear_winner_is_chosen_by_score():
    sentence = verdict(comparison(row("full", range(300), 1.0), row("local", range(200), 2.0)))
    assert sentence.startswith("I would choose `full`: 75.0% of the test examples right, 25.0 points (95% interval 20.")
    assert sentence.endswith("more than `local`, the next, and none of the others trains faster by more than noise.")


def test_a_clear_winner_that_is_slower_says_what_it_costs():
    sentence = verdict(comparison(row("full", range(300), 1.0), row("local", range(200), 0.5)))
    assert sentence.endswith("`local`, the next; `local` trains 2.0x as fast, but is 25.0 points behind.")


def test_within_noise_speed_decides():
    found = comparison(row("full", range(300), 1.0), row("local", range(2, 300), 0.4), row("linear", range(90), 0.1))
    assert verdict(found) == (
        "I would choose `local`: the scores of `full` and `local` are within noise of the best (75.0%), so speed "
        "decides: it is the fastest of them, 2.5x as fast as `full`."
    )


def test_the_baseline_can_be_the_fastest():
    found = comparison(row("full", range(300), 1.0), row("local", range(1, 300), 1.5))
    assert verdict(found).endswith("so speed decides: it is the fastest of them, 1.5x as fast as `local`, the next.")


def test_within_noise_of_score_and_speed_it_does_not_choose():
    slower, faster = row("full", range(300), 1.0, megabytes=300), row("local", range(1, 300), 1.0, megabytes=90)
    sentence = verdict(comparison(slower, faster))
    assert sentence == (
        "I would take either of `full` and `local`: the scores of `full` and `local` are within noise of the best "
        "(75.0%), and among them the speeds of these are too; `local` takes the least memory (90 MB, against up to "
        "300 MB)."
    )
    alike = row("local", range(1, 300), 1.0, megabytes=299)
    assert verdict(comparison(slower, alike)).endswith("the speeds of these are too.")


def test_a_score_no_better_than_guessing_is_no_choice():
    # 89 of 400 are 22.3 %, 1.1 standard errors above 20 %.
    sentence = verdict(comparison(row("full", range(89)), row("local", range(60))))
    assert sentence.startswith("I would not choose yet: no score is above always guessing the commonest class (20.0%)")
    assert not verdict(comparison(row("full", range(120)), row("local", range(60)))).startswith("I would not")


def test_rows_that_failed_are_left_out():
    failed = Row("linear", "failed", "FloatingPointError: loss")
    assert verdict(comparison(failed)) == "There is nothing to choose from: no mechanism was trained to the end."
    sentence = verdict(comparison(failed, row("full", range(300))))
    assert sentence == "There is nothing to compare: only `full` was trained to the end."
    both = verdict(comparison(row("full", range(300)), failed, row("local", range(200))))
    assert both.startswith("I would choose `full`")


def test_without_a_baseline_the_next_is_named():
    found = comparison(row("local", range(300), 1.0), row("linear", range(1, 300), 0.5), baseline=None)
    assert verdict(found).endswith("it is the fastest of them, 2.0x as fast as `local`, the next.")

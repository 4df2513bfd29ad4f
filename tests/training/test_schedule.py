import math

import pytest

from saccade.training import TrainingSettings
from saccade.training.schedule import learning_rate, peak_rate


def rates(**options):
    settings = TrainingSettings(learning_rate=3.0, **options)
    return [learning_rate(step, settings) for step in range(1, settings.steps + 1)]


def test_linear_warm_up_and_linear_decay():
    assert rates(steps=9, warmup=1 / 3, decay="linear") == pytest.approx(
        [1, 2, 3, 3 * 6 / 7, 3 * 5 / 7, 3 * 4 / 7, 3 * 3 / 7, 3 * 2 / 7, 3 / 7]
    )


def test_cosine_decay():
    expected = [1.5, 3] + [1.5 * (1 + math.cos(math.pi * i / 4)) for i in (1, 2, 3)]
    assert rates(steps=5, warmup=0.4, decay="cosine") == pytest.approx(expected)


@pytest.mark.parametrize("decay", ["linear", "cosine", "inverse_sqrt"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 13])
def test_every_step_learns_and_none_faster_than_asked(steps, warmup, decay):
    values = rates(steps=steps, warmup=warmup, decay=decay)
    assert all(0 < value <= 3 for value in values)
    if warmup == 1:
        assert values[-1] == 3


@pytest.mark.parametrize(("width", "warmup"), [(512, 4000), (1024, 400)])
def test_inverse_square_root_is_the_schedule_of_the_paper(width, warmup):
    settings = TrainingSettings(
        steps=10_000, warmup=warmup / 10_000, decay="inverse_sqrt", learning_rate=peak_rate(width, warmup)
    )
    for step in (1, 2, warmup - 1, warmup, warmup + 1, 7000, 10_000):
        wanted = width**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert learning_rate(step, settings) == pytest.approx(wanted, rel=1e-12)


def test_inverse_square_root_without_warm_up_falls_from_the_first_step_on():
    settings = TrainingSettings(steps=100, warmup=0.0, decay="inverse_sqrt", learning_rate=0.5)
    assert [learning_rate(step, settings) for step in (1, 4, 100)] == pytest.approx([0.5, 0.25, 0.05])


def test_a_peak_of_nothing_is_refused():
    with pytest.raises(ValueError, match="width must be a whole number, at least 1, got 0"):
        peak_rate(0, 4000)
    with pytest.raises(ValueError, match="warmup must be a whole number, at least 1, got 0"):
        peak_rate(512, 0)

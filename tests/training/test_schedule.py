import math

import pytest

from saccade.training import TrainingSettings
from saccade.training.schedule import learning_rate


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


@pytest.mark.parametrize("decay", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 13])
def test_every_step_learns_and_none_faster_than_asked(steps, warmup, decay):
    values = rates(steps=steps, warmup=warmup, decay=decay)
    assert all(0 < value <= 3 for value in values)
    if warmup == 1:
        assert values[-1] == 3

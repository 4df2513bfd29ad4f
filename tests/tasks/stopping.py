"""A run that is stopped and goes on, beside one that never stopped."""

import pytest
import torch

from saccade.tasks import resume, train

TIMES = ("seconds", "steps_per_second")


class StoppedError(Exception):
    """Stops a run after a step."""


def timeless(metrics):
    return {name: value for name, value in metrics.items() if not name.startswith(TIMES)}


def assert_goes_on(recipe, load, whole, folder):
    """A run that stopped after step 6 comes to the scores and weights of the whole one: its folder and scores."""

    def stop(step, loss, seconds):
        if step == 6:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(recipe, folder, on_step=stop, quiet=True)
    assert timeless(resume(folder, quiet=True)) == timeless(whole[1])
    for one, other in zip(load(folder)[0].parameters(), load(whole[0])[0].parameters(), strict=True):
        assert torch.equal(one, other)

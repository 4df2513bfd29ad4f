"""The learning rate of each step: a linear warm-up, then a linear or cosine decay.

A pure function of the step, so a resumed run has nothing to restore.
"""

import math

from saccade.training.settings import TrainingSettings


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """The learning rate of optimiser step `step`, counted from 1.

    The rate rises by equal amounts to `settings.learning_rate`, which the last step of the warm-up has, and
    then falls so that the step after the last one would have zero.
    """
    warmup = round(settings.warmup * settings.steps)
    if step <= warmup:
        return settings.learning_rate * step / warmup
    passed = (step - warmup) / (settings.steps + 1 - warmup)
    if settings.decay == "cosine":
        return settings.learning_rate * (1 + math.cos(math.pi * passed)) / 2
    return settings.learning_rate * (1 - passed)

"""The learning rate of each step: a linear warm-up, then a linear, cosine or inverse-square-root decay.

A pure function of the step, so a resumed run has nothing to restore.

`inverse_sqrt` with `peak_rate(width, warmup)` as the highest rate is the schedule of "Attention Is All You Need"
(Vaswani et al. 2017, section 5.3): `width^-0.5 min(step^-0.5, step warmup^-1.5)`.
"""

import math

from saccade.errors import whole_number
from saccade.training.settings import TrainingSettings


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """The learning rate of optimiser step `step`, counted from 1.

    The rate rises by equal amounts to `settings.learning_rate`, which the last step of the warm-up has, and
    then falls so that the step after the last one would have zero; with `inverse_sqrt` it falls with the root of the
    step, however many there are, from the first step on if there is no warm-up.
    """
    warmup = round(settings.warmup * settings.steps)
    if step <= warmup:
        return settings.learning_rate * step / warmup
    if settings.decay == "inverse_sqrt":
        return settings.learning_rate * math.sqrt(max(warmup, 1) / step)
    passed = (step - warmup) / (settings.steps + 1 - warmup)
    if settings.decay == "cosine":
        return settings.learning_rate * (1 + math.cos(math.pi * passed)) / 2
    return settings.learning_rate * (1 - passed)


def peak_rate(width: int, warmup: int) -> float:
    """The highest learning rate of the paper's schedule, reached at the end of the warm-up.

    Args:
        width: the model width.
        warmup: steps of the warm-up; 4000 in the paper.

    Raises:
        ValueError: a number below 1.
    """
    whole_number("width", width)
    whole_number("warmup", warmup)
    return 1 / math.sqrt(width * warmup)

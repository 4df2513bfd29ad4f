"""What mechanisms want training to make small besides the task's loss (`Record("losses")`), added to it."""

from collections.abc import Iterable

from saccade.nn.losses import Loss
from saccade.shapes import Float, Tensor


def with_auxiliary(task: Loss, auxiliary: Iterable[Float[Tensor, ""]]) -> Loss:
    """The task's loss and auxiliary ones: its mean is the task's mean plus each of them.

    So batches that are put together share auxiliary losses by their tokens, as they do the task's.

    Args:
        task: what the tokens of a batch cost.
        auxiliary: numbers that are already multiplied by their factors.
    """
    # Divided by the share of one token, not multiplied by the count: divided by the count in turn, as the mean is, the
    # gradient of each is exactly 1, and not nearly.
    share = task.count.clamp(min=1).to(task.sum.dtype).reciprocal()
    return Loss(sum((each / share for each in auxiliary), start=task.sum), task.count)

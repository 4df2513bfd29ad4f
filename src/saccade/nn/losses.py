"""Losses as sums and counts, so that a mean is taken once, over all that it speaks of.

A mean of means of batches weighs a token by the company it is in; sums and counts of batches, workers and accumulated
steps add up.
"""

from typing import NamedTuple

from torch.nn import functional

from saccade.errors import must_be
from saccade.shapes import Bool, Float, Int, Tensor


class Loss(NamedTuple):
    """What some tokens cost together.

    Attributes:
        sum: in nats.
        count: over how many tokens, a whole number as a tensor.
    """

    sum: Float[Tensor, ""]
    count: Int[Tensor, ""]  # pyright: ignore[reportIncompatibleMethodOverride] - a loss is read by name

    @property
    def mean(self) -> Float[Tensor, ""]:
        """The loss of one token; 0 where there is none."""
        return self.sum / self.count.clamp(min=1)


def cross_entropy(
    logits: Float[Tensor, "*b v"],
    targets: Int[Tensor, "*b"],
    mask: Bool[Tensor, "*b"] | None = None,
    smoothing: float = 0.0,
) -> Loss:
    """How surprising the targets are (with label smoothing: Szegedy et al. 2016; Vaswani et al. 2017, section 5.4).

    With smoothing s the target is `(1 - s)` at the right token, and `s` spread over all `v`, the right one included. It
    is for training: what is reported, such as a perplexity, is without.

    Args:
        logits: scores of each token.
        targets: the right ones.
        mask: True for real targets; all are, if not given. What stands at the others never matters, to the loss or to
            any gradient, be it NaN or no token at all.
        smoothing: the share of the target that is spread, at least 0 and below 1.

    Raises:
        ValueError: a share that is none, or shapes that do not fit.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(must_be("smoothing", "at least 0 and below 1", smoothing))
    for name, tensor in (("targets", targets), ("mask", mask)):
        if tensor is not None and tensor.shape != logits.shape[:-1]:
            raise ValueError(
                must_be(name, f"of the shape of the logits, {tuple(logits.shape[:-1])}", tuple(tensor.shape))
            )
    logits, targets = (logits.flatten(0, -2), targets.flatten()) if mask is None else (logits[mask], targets[mask])
    total = functional.cross_entropy(logits, targets.long(), reduction="sum", label_smoothing=smoothing)
    return Loss(total, targets.new_tensor(len(targets)))

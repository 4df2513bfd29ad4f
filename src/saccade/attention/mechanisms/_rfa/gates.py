"""Gates as exponents of 2: how much of the sums behind a token is left of what was before, and how much is its own.

With g the sigmoid of a gate's logit, S_t = g_t S_(t-1) + (1 - g_t) phi(k_t) v_t^T. So the sums behind token i hold
key j with the weight (1 - g_j) g_(j+1) ... g_i, which is 2 to the difference of two numbers: one of the key, and one of
the row, the sum of all -log2 g up to it. Neither ever leaves its range, however far a gate is open or shut.

Cost: O(n) for each head.
"""

from typing import NamedTuple

from torch.nn.functional import logsigmoid

from saccade.attention.backends._tiles import LOG2E
from saccade.attention.mechanisms._scaled_sums import Scales
from saccade.shapes import Bool, Float, Tensor

FURTHEST = 1e4
"""The largest logit that is told from infinity: behind 2 to the 14,427th part nothing is left in any precision."""


class Fades(NamedTuple):
    """What gates do to sums, in units of log 2; in float64, as their sums grow with the length, where there is that.

    Attributes:
        keep: log2 g; 0 where a token is hidden, which changes nothing.
        take: log2(1 - g).
    """

    keep: Float[Tensor, "b g n 1"]
    take: Float[Tensor, "b g n 1"]

    @property
    def scales(self) -> Scales:
        """Of all keys and of queries at the same positions, behind sums that are as they are."""
        row = -self.keep.cumsum(2)
        key, row = (each.flatten(0, 1) for each in (self.take + row, row))
        return Scales(key, row, row.new_zeros(row.shape[0], 1, 1))


def fades(gate: Float[Tensor, "b g n 1"], key_mask: Bool[Tensor, "b n"] | None) -> Fades:
    """From the logits; what is hidden may be anything."""
    gate = gate.clamp(-FURTHEST, FURTHEST)
    gate = gate if gate.device.type == "mps" else gate.double()
    if key_mask is not None:
        gate = gate.masked_fill(~key_mask[:, None, :, None], 0)
    keep, take = (logsigmoid(each) * LOG2E for each in (gate, -gate))
    return Fades(keep if key_mask is None else keep.masked_fill(~key_mask[:, None, :, None], 0), take)

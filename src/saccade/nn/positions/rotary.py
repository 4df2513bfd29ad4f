"""Rotary positions: queries and keys are turned by their positions (RoFormer, Su et al. 2021).

Neighbouring numbers are a pair, as in the paper's equation 15: numbers 2i and 2i + 1 of a query or key at position m
are turned by the angle m / 10000^(2i / d). The dot product of two turned vectors depends on their distance alone. Some
libraries pair i with i + d/2 instead: the same up to the order of numbers, so weights of theirs must be reordered.

Cost: O(n d) time a head, no parameter, nothing that grows with the pairs.
"""

import torch

from saccade.errors import must_be
from saccade.nn.positions.position import Position
from saccade.nn.positions.sinusoidal import sinusoids
from saccade.shapes import Float, Tensor


def rotated(x: Float[Tensor, "b h n d"], start: int = 0) -> Float[Tensor, "b h n d"]:
    """Each vector turned by its position: `start` and on. Of an odd dim the last number stays as it is.

    Angles are made in float64, turned is in fp32 or better, and the result has x's dtype.

    Raises:
        ValueError: vectors of a single number, which cannot be turned.
    """
    n, d = x.shape[2:]
    if d < 2:
        raise ValueError(must_be("dim of a head", "at least 2 for rotary positions", d))
    even = d - d % 2
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    angles = sinusoids(n, even, start).to(wide)
    sine, cosine = angles[:, 0::2], angles[:, 1::2]
    first, second = wide[..., 0:even:2], wide[..., 1:even:2]
    turned = torch.stack((first * cosine - second * sine, first * sine + second * cosine), dim=-1).flatten(-2)
    return torch.cat([turned, wide[..., even:]], dim=-1).to(x.dtype)


class Rotary(Position):
    """Queries and keys turned by their positions: no parameter, and any length works, whatever `max_length` says."""

    def __init__(self, width: int, max_length: int) -> None:
        super().__init__()

    def on_qk(
        self,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b g k d"],
        q_start: int = 0,
        k_start: int = 0,
        *,
        causal: bool,
    ) -> tuple[Float[Tensor, "b h q d"], Float[Tensor, "b g k d"]]:
        """Both turned."""
        return rotated(q, q_start), rotated(k, k_start)

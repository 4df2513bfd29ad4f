"""ALiBi: far keys score less, in proportion to the distance (Press et al. 2022).

The score of a query at i with a key at j gets -m |i - j|, with a slope m for each head: 2^(-8/h), 2^(-16/h), ...

Causally j is at most i, so this is m j - m i. What it takes from all keys of a query alike, m i, is nothing to a
softmax: only m j counts, a number times a number of the key. So queries and keys get a few more numbers, and no array
of pairs is ever made: windows stay windows, torch's kernel stays fused, and a kept key serves every later query.
Without `causal` the distance goes both ways, which no such product can say: then it is an array of all pairs.

Cost: causally O(n) time and memory a head, and 4 more numbers in each product; otherwise O(n^2), in dense attention.
"""

import math

import torch

from saccade.nn.positions.position import Position
from saccade.shapes import Float, Tensor

BASE = 256
"""Positions are given in digits to this base, which every floating-point type holds exactly."""

FAR = 2.0**14
"""The key's part of `-m i`: so large that the query's part stays within the range of fp16."""


def slopes(heads: int) -> Float[Tensor, " h"]:
    """The slope of each head, in float64.

    For a power of two a geometric series from 2^(-8/h) on with that ratio. Otherwise that of the next smaller power,
    and then every other one of the next larger power, as in the paper's code.
    """
    power = 2 ** (heads.bit_length() - 1)
    series = [2.0 ** (-8 * i / power) for i in range(1, power + 1)]
    between = [2.0 ** (-8 * i / (2 * power)) for i in range(1, 2 * power + 1, 2)]
    return torch.tensor([*series, *between[: heads - power]], dtype=torch.float64)


class ALiBi(Position):
    """Scores fall with the distance: no parameter, and any length up to 2^24 works, whatever `max_length` says."""

    extra_dims = 4

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
    ) -> tuple[Float[Tensor, "b h q d2"], Float[Tensor, "b g k d2"]]:
        """Four numbers in front, whose product is `m (j - i)`, times what a score is divided by; without causal zeros.

        The part of `i` only keeps scores small, so that they lose no digits; it may be rounded.
        """
        d = q.shape[-1]
        # A softmax over d + 4 numbers divides by the root of as many.
        q = q * math.sqrt((d + self.extra_dims) / d)
        if not causal:
            nothing = torch.zeros(1, self.extra_dims)
            return _in_front(nothing, q), _in_front(nothing, k)
        rise = slopes(q.shape[1])[:, None] * math.sqrt(d + self.extra_dims)
        i = torch.arange(q_start, q_start + q.shape[2], dtype=torch.float64)
        j = torch.arange(k_start, k_start + k.shape[2])
        ones = torch.ones_like(i)
        # From the largest part to the smallest: what is added up cancels before small digits come.
        asks = torch.stack([-rise * i / FAR, rise * BASE * ones, rise * BASE * ones, rise * ones], -1)
        has = torch.stack([torch.full_like(j, int(FAR)), j // BASE**2 * BASE, j // BASE % BASE, j % BASE], -1)
        return _in_front(asks, q), _in_front(has, k)

    def on_scores(
        self,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b g k d"],
        q_start: int = 0,
        k_start: int = 0,
        *,
        causal: bool,
    ) -> Float[Tensor, "1 h q k"] | None:
        """Without causal `-m |i - j|` for all pairs."""
        if causal:
            return None
        i = torch.arange(q_start, q_start + q.shape[2], device=q.device)[:, None]
        j = torch.arange(k_start, k_start + k.shape[2], device=q.device)
        wide = torch.promote_types(q.dtype, torch.float32)
        slope = slopes(q.shape[1]).to(q.device, wide)[None, :, None, None]
        return (slope * (i - j).abs().neg()).to(q.dtype)


def _in_front(numbers: Tensor, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d2"]:
    return torch.cat([numbers.to(x).expand(*x.shape[:3], -1), x], dim=-1)

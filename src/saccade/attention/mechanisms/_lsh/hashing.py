"""Locality-sensitive hashing by random rotations: vectors that point the same way mostly get the same number.

Source: cross-polytope hashing (Andoni et al. 2015) as in Reformer (Kitaev et al. 2020): argmax [xR; -xR].

Cost: O(n f d) time for f directions; memory O(n).
"""

import math
from functools import lru_cache

import torch

from saccade.attention.backends._tiles import Workspace, workspace
from saccade.attention.seeds import generator_of
from saccade.shapes import Float, Int, Tensor

ONE_DIGIT = 64
"""Up to so many buckets each has directions of its own; more are numbered by two digits, each hashed by itself."""

PRODUCTS = 2**20
"""Products with directions at a time: they stay in cache."""

DRAWN = 32
"""Directions are drawn so many at a time, so that the first ones do not depend on how many are wanted."""


def digits(buckets: int) -> tuple[int, ...]:
    """The even digits that number at least so many buckets: one, or two of about the same size."""
    if buckets <= ONE_DIGIT:
        return (buckets,)
    first = 2 * math.ceil(math.sqrt(buckets) / 2)
    return first, 2 * math.ceil(buckets / (2 * first))


@lru_cache(maxsize=64)
def rotations(seed: int, layer: int, heads: int, rounds: int, dim: int, size: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Random directions for each digit, `[h r d f]` in float64: half as many as it has values."""
    return tuple(
        torch.stack(
            [
                torch.stack([_directions((seed, layer, head, turn, digit), dim, values // 2) for turn in range(rounds)])
                for head in range(heads)
            ]
        )
        for digit, values in enumerate(size)
    )


def _directions(key: tuple[int, ...], dim: int, count: int) -> Float[Tensor, "d f"]:
    """The first normally distributed directions of a stream of them."""
    generator = generator_of(*key)
    drawn = [
        torch.randn(DRAWN, dim, generator=generator, dtype=torch.float64, device="cpu") for _ in range(0, count, DRAWN)
    ]
    return torch.cat(drawn)[:count].mT


def hashed(x: Float[Tensor, "m n d"], directions: tuple[Tensor, ...]) -> Int[Tensor, "m r n"]:
    """The bucket of each token in each round: argmax [xR; -xR], digit by digit, some heads at a time."""
    heads, rounds, dim, _ = directions[0].shape
    found = torch.zeros(len(x), rounds, x.shape[1], dtype=torch.int32, device=x.device)
    work, head = workspace(x.dtype, x.device), torch.arange(len(x), device=x.device) % heads
    for rotation in directions:
        count = rotation.shape[3]
        rows = rotation.to(x).transpose(2, 3).reshape(heads, rounds * count, dim)
        step = max(1, PRODUCTS // max(1, rounds * count * x.shape[1]))
        for some, mine, its in zip(x.split(step), found.split(step), head.split(step), strict=True):
            out = work.take("turned", len(some), rounds * count, x.shape[1])
            torch.bmm(rows.index_select(0, its), some.mT, out=out)
            mine.mul_(2 * count).add_(_largest(work, out.view(len(some), rounds, count, x.shape[1])))
    return found


def _largest(work: Workspace, turned: Float[Tensor, "m r f n"]) -> Int[Tensor, "m r n"]:
    """The number of the largest of [xR; -xR], the first of equals. `argmax` takes several times as long."""
    count = turned.shape[2]
    high, low = turned.amax(2, keepdim=True), turned.amin(2, keepdim=True)
    negative = high < -low
    equal = torch.eq(turned, torch.where(negative, low, high), out=work.take("equal", *turned.shape))
    falling = torch.arange(count, 0, -1, dtype=turned.dtype, device=turned.device)[:, None]
    found = count - equal.mul_(falling).amax(2)
    return (found + negative.squeeze(2) * count).clamp_(max=2 * count - 1).int()

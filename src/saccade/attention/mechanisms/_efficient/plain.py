"""The running softmax in plain operators, for ONNX, which has no other: chunks are an axis of their own.

What `running.py` computes, by the factors of `factors.py`.

Cost: log2(chunk) + 3 exponentials for each number of a key; memory O(n (d log2(chunk) + d e / chunk)), and
d (n / chunk)^2 scales by which sums sink from chunk to chunk.
"""

import torch

from saccade.attention.backends._tiles import LOG2E
from saccade.attention.mechanisms._efficient.features import Running
from saccade.attention.mechanisms._exported_sums import (
    HALVES,
    faded,
    halved,
    highest_so_far,
    in_chunks,
    in_one_piece,
    joined,
)
from saccade.shapes import Float, Tensor


def plain_running_softmax(
    q: Float[Tensor, "m n d"],
    k: Float[Tensor, "m n d"],
    v: Float[Tensor, "m n e"],
    peak: Float[Tensor, "m d 1"],
    z: Float[Tensor, "m d 1"],
    s: Float[Tensor, "m d e"],
) -> Float[Tensor, "m n e"]:
    """What each query gets from the keys up to its own position, and sums over earlier ones; hidden keys are -inf."""
    earlier = Running(peak, z, s)
    n, rho = q.shape[1], in_chunks(q.softmax(-1))
    k, v = in_chunks(k), in_chunks(torch.cat([v, torch.ones_like(v[..., :1])], 2))  # the ones make sums of weights
    peak, before = highest_so_far(k, earlier.peak.mT)
    sums = _before_chunks(k, v, peak, before, earlier)
    own, begin = (k - peak).exp(), (before - peak).exp()
    total = own + begin * sums[..., -1:].mT
    for half in HALVES:
        (of_key, of_query), (_, late) = _factors(k, peak, half), halved(total, half)
        total = _later(total, late + of_query * of_key.sum(3, keepdim=True))
    a, v = rho / total.clamp(min=0.5), v[..., :-1]  # with a key of the size of the peak it is no less than 1
    out = (a * own).sum(-1, keepdim=True) * v + (a * begin) @ sums[..., :-1]
    for half in HALVES:
        (of_key, of_query), (_, asking), (early, _) = _factors(k, peak, half), halved(a, half), halved(v, half)
        out = _later(out, halved(out, half)[1] + (asking * of_query) @ of_key.mT @ early)
    return in_one_piece(out, n)


def _before_chunks(
    k: Float[Tensor, "m c t d"],
    v: Float[Tensor, "m c t e"],
    peak: Float[Tensor, "m c t d"],
    before: Float[Tensor, "m c 1 d"],
    earlier: Running,
) -> Float[Tensor, "m c d e"]:
    """The sums over all that lies before each chunk; the last column is that of the weights alone."""
    end = peak[:, :, -1:]
    carried = torch.cat([earlier.s, earlier.z], 2)[:, None] * (earlier.peak[:, None] - before.mT).exp()
    return faded((k - end).exp().mT @ v, end * LOG2E, before * LOG2E) + carried


def _factors(
    k: Float[Tensor, "m c t d"], peak: Float[Tensor, "m c t d"], half: int
) -> tuple[Float[Tensor, "m c _s h d"], Float[Tensor, "m c _s h d"]]:
    """Of keys in earlier halves and queries in later ones, by way of the peak between them."""
    (early, _), (first, last) = halved(k, half), halved(peak, half)
    between = first[:, :, :, -1:]
    return (early - between).exp(), (between - last).exp()


def _later(x: Float[Tensor, "m c t d"], late: Float[Tensor, "m c _s h d"]) -> Float[Tensor, "m c t d"]:
    """The chunks with other later halves."""
    return joined(halved(x, late.shape[3])[0], late)

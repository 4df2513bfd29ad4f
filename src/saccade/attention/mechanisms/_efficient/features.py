"""The softmax over positions as a feature map, and its sums over keys; the slope of the softmax over features.

A softmax over positions is an exponential, shifted so that the largest of each feature is 1, over its sum. Exponents
are kept in units of log2, as `exp2` is three times as fast as `exp`; a shift is what they are moved by, minus the
largest: c k + shift <= 0 for c = log2 e. The addition of c k is one fused operation, so that k is never rounded.
"""

from typing import NamedTuple

import torch

from saccade.attention.backends._tiles import LOG2E, Workspace
from saccade.attention.mechanisms._feature_map import Cut, FeatureMap, sums_of
from saccade.shapes import Float, Tensor


class Running(NamedTuple):
    """What queries need to know of keys and values, of each head: sums of exp(k - peak), for each feature.

    Attributes:
        peak: the largest key, or the lowest number there is where nothing was seen.
        z: their sum.
        s: their sum, each times its value.
    """

    peak: Float[Tensor, "*m d 1"]
    z: Float[Tensor, "*m d 1"]
    s: Float[Tensor, "*m d e"]


class Exponential(FeatureMap):
    """exp(x - peak), as 2^(c x + shift) with the shift of each head."""

    def __init__(self, shift: Float[Tensor, "m 1 d"]) -> None:
        self.shift = shift

    def size(self, dim: int) -> int:
        """One feature for each number."""
        return dim

    def features(self, work: Workspace, name: str, x: Float[Tensor, "m n d"], cut: Cut) -> Float[Tensor, "m n d"]:
        """At most 1."""
        return torch.add(self.shift[cut.heads], x, alpha=LOG2E, out=work.take(name, *x.shape)).exp2_()

    def slope(
        self, x: Float[Tensor, "m n d"], phi: Float[Tensor, "m n d"], grad: Float[Tensor, "m n d"], cut: Cut
    ) -> Float[Tensor, "m n d"]:
        """The exponential itself."""
        return grad.mul_(phi)


def softmax_slope(rho: Float[Tensor, "m n d"], grad: Float[Tensor, "m n d"]) -> Float[Tensor, "m n d"]:
    """The gradient of what went through a softmax over the last axis; `grad` is spoilt."""
    mean = torch.linalg.vecdot(rho, grad)[..., None]
    return grad.sub_(mean).mul_(rho)


def lowest(dtype: torch.dtype) -> float:
    """A peak below all others: finite, so that differences of peaks are numbers."""
    return torch.finfo(dtype).min / 4


def shift_of(peak: Float[Tensor, "*m d 1"]) -> Float[Tensor, "*m 1 d"]:
    """What exponents are moved by. Rounded as -c k is, so that no exponent of a key under its peak is above 0."""
    return peak.mT * -LOG2E


def summed(k: Float[Tensor, "m k d"], v: Float[Tensor, "m k e"]) -> Running:
    """The sums over all keys of each head; hidden ones are -inf."""
    floor = k.new_full((k.shape[0], 1, k.shape[2]), lowest(k.dtype))
    # No gradient: what is divided by what does not depend on the peak. (`torch.export` sees nothing of `no_grad`.)
    peak = torch.maximum(k.detach().amax(1, keepdim=True), floor) if k.shape[1] else floor
    peak = peak.mT
    s, z = sums_of(k, v, None, Exponential(shift_of(peak)))
    return Running(peak, z, s)

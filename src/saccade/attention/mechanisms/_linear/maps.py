"""The feature maps of `linear`: phi, and its derivative, each from one paper.

Each is written for workspaces, as `_feature_map.py` tells.
"""

import math
from collections.abc import Iterator, Mapping

import torch

from saccade.attention.backends._tiles import LOG2E, Workspace
from saccade.attention.mechanisms._feature_map import Cut, FeatureMap
from saccade.shapes import Float, Tensor


class EluPlusOne(FeatureMap):
    """phi(x) = elu(x) + 1, positive everywhere; written so that nothing is lost where exp(x) is far below 1.

    Source: "Transformers are RNNs" (Katharopoulos et al. 2020).
    """

    def size(self, dim: int) -> int:
        """One feature for each number."""
        return dim

    def features(self, work: Workspace, name: str, x: Float[Tensor, "m n d"], cut: Cut) -> Float[Tensor, "m n d"]:
        """exp(x) below zero, x + 1 above."""
        below = torch.clamp(x, max=0, out=work.take(name, *x.shape))
        above = torch.clamp(x, min=0, out=work.take("above", *x.shape))
        return below.mul_(LOG2E).exp2_().add_(above)

    def slope(
        self, x: Float[Tensor, "m n d"], phi: Float[Tensor, "m n d"], grad: Float[Tensor, "m n d"], cut: Cut
    ) -> Float[Tensor, "m n d"]:
        """Phi itself below zero, 1 above."""
        return grad.mul_(phi.clamp_(max=1))


class Relu(FeatureMap):
    """phi(x) = max(x, 0): most weights are exactly 0, and where no feature of a query is any key's, all are.

    Source: "Finetuning Pretrained Transformers into RNNs" (Kasai et al. 2021), without its learned projection.
    """

    def size(self, dim: int) -> int:
        """One feature for each number."""
        return dim

    def features(self, work: Workspace, name: str, x: Float[Tensor, "m n d"], cut: Cut) -> Float[Tensor, "m n d"]:
        """What is positive."""
        return torch.clamp(x, min=0, out=work.take(name, *x.shape))

    def slope(
        self, x: Float[Tensor, "m n d"], phi: Float[Tensor, "m n d"], grad: Float[Tensor, "m n d"], cut: Cut
    ) -> Float[Tensor, "m n d"]:
        """1 where it is positive."""
        return grad.mul_(phi.sign_())


class Dpfp(FeatureMap):
    """Products of r = max([x, -x], 0) with itself, moved by 1 to nu places: sparse, and orthogonal more often.

    Source: "Linear Transformers Are Secretly Fast Weight Programmers" (Schlag et al. 2021), deterministic
    parameter-free projection, equations 37 and 38.
    """

    def __init__(self, nu: int) -> None:
        self.nu = nu

    def size(self, dim: int) -> int:
        """2 d for each place moved."""
        return 2 * dim * self.nu

    def features(self, work: Workspace, name: str, x: Float[Tensor, "m n d"], cut: Cut) -> Float[Tensor, "m n f"]:
        """r_i r_(i - nu), cyclically."""
        r = self._halves(work, x)
        phi = work.take(name, *x.shape[:2], self.size(x.shape[2]))
        for moved, part in enumerate(phi.chunk(self.nu, -1), 1):
            part.copy_(r)
            part[..., moved:].mul_(r[..., :-moved])
            part[..., :moved].mul_(r[..., -moved:])
        return phi

    def slope(
        self, x: Float[Tensor, "m n d"], phi: Float[Tensor, "m n f"], grad: Float[Tensor, "m n f"], cut: Cut
    ) -> Float[Tensor, "m n d"]:
        """Each product passes on to both of its factors what the other is."""
        r = torch.cat([x.clamp(min=0), x.clamp(max=0).neg_()], -1)
        to_r = torch.zeros_like(r)
        for moved, part in enumerate(grad.chunk(self.nu, -1), 1):
            to_r.addcmul_(part, r.roll(moved, -1)).add_(part.mul_(r).roll(-moved, -1))
        above, below = to_r.mul_(r.sign_()).chunk(2, -1)
        return above.sub_(below)

    def _halves(self, work: Workspace, x: Float[Tensor, "m n d"]) -> Float[Tensor, "m n d2"]:
        """r: what is positive, then the size of what is negative."""
        r = work.take("r", *x.shape[:2], 2 * x.shape[2])
        above, below = r.chunk(2, -1)
        above.copy_(x).clamp_(min=0)
        below.copy_(x).clamp_(max=0).neg_()
        return r


class Taylor(FeatureMap):
    """1, x and all products x_i x_j, so that a weight is 1 + s + s^2 / 2, near exp(s), for s = q . k / sqrt(d).

    Source: "On The Computational Complexity of Self-Attention" (Keles et al. 2022) and Based (Arora et al. 2024).
    Products with i < j stand once, which halves their number.
    """

    def size(self, dim: int) -> int:
        """1 + d + d (d + 1) / 2."""
        return 1 + dim + dim * (dim + 1) // 2

    def features(self, work: Workspace, name: str, x: Float[Tensor, "m n d"], cut: Cut) -> Float[Tensor, "m n f"]:
        """Of x / d^(1/4), so that products of two are divided by sqrt(d)."""
        phi = work.take(name, *x.shape[:2], self.size(x.shape[2]))
        phi[..., 0].fill_(1)
        x = phi[..., 1 : x.shape[2] + 1].copy_(x).mul_(x.shape[2] ** -0.25)
        for i, products in enumerate(self._rows(phi, x.shape[2])):
            products.copy_(x[..., i:]).mul_(x[..., i, None])
            products[..., 0].mul_(math.sqrt(0.5))
        return phi

    def slope(
        self, x: Float[Tensor, "m n d"], phi: Float[Tensor, "m n f"], grad: Float[Tensor, "m n f"], cut: Cut
    ) -> Float[Tensor, "m n d"]:
        """That of x itself, and of each product by way of both of its factors."""
        dim = x.shape[2]
        x, to_x = phi[..., 1 : dim + 1], grad[..., 1 : dim + 1]
        for i, products in enumerate(self._rows(grad, dim)):
            products[..., 0].mul_(math.sqrt(0.5))
            to_x[..., i].add_(torch.linalg.vecdot(products, x[..., i:]))
            to_x[..., i:].addcmul_(products, x[..., i, None])
        return to_x.mul_(dim**-0.25)

    def _rows(self, phi: Float[Tensor, "m n f"], dim: int) -> Iterator[Float[Tensor, "m n _d"]]:
        """The products of each number with itself and those behind it."""
        yield from phi[..., dim + 1 :].split(list(range(dim, 0, -1)), -1)


class Hedgehog(FeatureMap):
    """Softmaxes of x and of -x, side by side: positive, and sharp where x is large. `linear` learns what x is.

    Source: "The Hedgehog & the Porcupine" (Zhang et al. 2024), its feature map normalised as in the authors' code.
    """

    def size(self, dim: int) -> int:
        """Two for each number."""
        return 2 * dim

    def features(self, work: Workspace, name: str, x: Float[Tensor, "m n d"], cut: Cut) -> Float[Tensor, "m n f"]:
        """Each half sums to 1."""
        phi = work.take(name, *x.shape[:2], 2 * x.shape[2])
        above, below = phi.chunk(2, -1)
        above.copy_(torch.softmax(x, -1, out=work.take("softmax", *x.shape)))
        negative = torch.neg(x, out=work.take("negative", *x.shape))
        below.copy_(torch.softmax(negative, -1, out=work.take("softmax", *x.shape)))
        return phi

    def slope(
        self, x: Float[Tensor, "m n d"], phi: Float[Tensor, "m n f"], grad: Float[Tensor, "m n f"], cut: Cut
    ) -> Float[Tensor, "m n d"]:
        """That of the softmax of x, less that of the softmax of -x."""
        weights, grads = phi.unflatten(-1, (2, -1)), grad.unflatten(-1, (2, -1))
        means = torch.linalg.vecdot(weights, grads)[..., None]
        above, below = grads.sub_(means).mul_(weights).unbind(-2)
        return above.sub_(below)


MAPS: Mapping[str, type[FeatureMap]] = {
    "elu": EluPlusOne,
    "relu": Relu,
    "dpfp": Dpfp,
    "taylor": Taylor,
    "hedgehog": Hedgehog,
}
"""Which there are; `dpfp` is made with its nu."""

POSITIVE = ("elu", "taylor", "hedgehog")
"""Whose weights are never all 0 for a query that sees a key."""

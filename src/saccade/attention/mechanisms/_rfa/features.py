"""The random features of Random Feature Attention: sines and cosines, or what is positive of the projections.

Both leave out the factor 1 / sqrt(directions) of the paper, which cancels in every mean: what sums of weights are
compared with is multiplied by the number of directions instead.

Cost: O(n f d) time for f features; a workspace for some thousand rows.
"""

import torch

from saccade.attention.backends._tiles import Workspace
from saccade.attention.mechanisms._feature_map import Cut, FeatureMap, room
from saccade.shapes import Float, Tensor


class SinesAndCosines(FeatureMap):
    """phi(x) = [sin(w x), cos(w x)] for each direction w (Rahimi & Recht 2007).

    Args:
        directions: of each head of all examples.
    """

    def __init__(self, directions: Float[Tensor, "m f2 d"]) -> None:
        self.directions = directions

    def size(self, dim: int) -> int:
        """Two for each direction."""
        return 2 * self.directions.shape[1]

    def features(self, work: Workspace, name: str, x: Float[Tensor, "m n d"], cut: Cut) -> Float[Tensor, "m n f"]:
        """All sines, then all cosines."""
        directions = self.directions[cut.heads]
        half = directions.shape[1]
        phi = work.take(name, *x.shape[:2], 2 * half)
        angle = torch.bmm(x, directions.mT, out=work.take("angle", *x.shape[:2], half))
        phi[..., :half].copy_(angle).sin_()  # not `out=`: no compiler takes it where rows are apart
        phi[..., half:].copy_(angle).cos_()
        return phi

    def slope(
        self, x: Float[Tensor, "m n d"], phi: Float[Tensor, "m n f"], grad: Float[Tensor, "m n f"], cut: Cut
    ) -> Float[Tensor, "m n d"]:
        """A sine grows by the cosine, a cosine falls by the sine: both are at hand."""
        work, (sin, cos), (to_sin, to_cos) = room(x), phi.chunk(2, -1), grad.chunk(2, -1)
        angle = torch.mul(to_sin, cos, out=work.take("angle", *sin.shape)).addcmul_(to_cos, sin, value=-1)
        return torch.bmm(angle, self.directions[cut.heads], out=work.take("to_x", *x.shape))


class Rectified(FeatureMap):
    """phi(x) = relu(w x) for each direction w: the arc-cosine kernel of order 1 (Cho & Saul 2009).

    Args:
        directions: of each head of all examples.
    """

    def __init__(self, directions: Float[Tensor, "m f d"]) -> None:
        self.directions = directions

    def size(self, dim: int) -> int:
        """One for each direction."""
        return self.directions.shape[1]

    def features(self, work: Workspace, name: str, x: Float[Tensor, "m n d"], cut: Cut) -> Float[Tensor, "m n f"]:
        """What is positive of the projections."""
        directions = self.directions[cut.heads]
        return torch.bmm(x, directions.mT, out=work.take(name, *x.shape[:2], directions.shape[1])).relu_()

    def slope(
        self, x: Float[Tensor, "m n d"], phi: Float[Tensor, "m n f"], grad: Float[Tensor, "m n f"], cut: Cut
    ) -> Float[Tensor, "m n d"]:
        """1 where they are positive."""
        return torch.bmm(grad.mul_(phi.sign_()), self.directions[cut.heads], out=room(x).take("to_x", *x.shape))


KERNELS: dict[str, type[SinesAndCosines | Rectified]] = {"gaussian": SinesAndCosines, "arccos": Rectified}
"""The kernel that is estimated, and its features."""


def directions_of(kernel: str, features: int) -> int:
    """How many random directions make so many features: the paper's D."""
    return features // 2 if kernel == "gaussian" else features

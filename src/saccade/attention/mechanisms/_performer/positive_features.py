"""Positive features, each row divided by its largest one, so that none overflows.

exp(w . x - |x|^2 / 2) has any size, but divided by the largest of its row it lies between 0 and 1. For a query that is
all that matters: its factor stands in all its weights and in their sum alike. For a key the factor is its shift.

Source: "Rethinking Attention with Performers" (Choromanski et al. 2020), lemma 1 and section 2.3.
"""

import torch
from torch import Tensor

from saccade.attention.backends._tiles import LOG2E, Workspace
from saccade.attention.mechanisms._feature_map import Cut, FeatureMap
from saccade.shapes import Float


class PositiveFeatures(FeatureMap):
    """phi(x) = exp(w . x) over the largest of them, for the directions w of the head.

    The gradients of keys are those of exp(w . x - |x|^2 / 2), as what is taken out of them counts elsewhere.

    Attributes:
        of_keys: whether rows are keys.
        directions: of each key head.
        head: for each head of all examples, which key head it is or belongs to.
        scale: of queries and of keys; both together are the softmax's own.
    """

    def __init__(self, directions: Float[Tensor, "g f d"], heads: int, examples: int, of_keys: bool = False) -> None:
        self.of_keys = of_keys
        groups = len(directions)
        self.directions, self.scale = directions, directions.shape[2] ** -0.25
        self.head = torch.arange(heads, device=directions.device).div(heads // groups, rounding_mode="floor")
        self.head = self.head.repeat(examples)

    def size(self, dim: int) -> int:
        """One feature for each direction."""
        return self.directions.shape[1]

    def features(self, work: Workspace, name: str, x: Float[Tensor, "m n d"], cut: Cut) -> Float[Tensor, "m n f"]:
        """Between 0 and 1 in each row."""
        out = self.exponents(work, name, x, cut)
        return out.sub_(out.amax(-1, keepdim=True)).exp2_()

    def slope(
        self, x: Float[Tensor, "m n d"], phi: Float[Tensor, "m n f"], grad: Float[Tensor, "m n f"], cut: Cut
    ) -> Float[Tensor, "m n d"]:
        """The sum of directions, each as its feature and its gradient have it; the largest counts as a constant."""
        grad.mul_(phi)
        if not self.of_keys:
            return torch.baddbmm(x, grad, self.rows(cut), beta=0, alpha=self.scale)
        norms = x * grad.sum(-1, keepdim=True)
        return norms.baddbmm_(grad, self.rows(cut), beta=-(self.scale**2), alpha=self.scale)

    def exponents(
        self,
        work: Workspace,
        name: str,
        x: Float[Tensor, "m n d"],
        cut: Cut,
        offset: Float[Tensor, "m n 1"] | None = None,
    ) -> Float[Tensor, "m n f"]:
        """The products w . x, in units of log 2, and the offset of each row."""
        out, rows = work.take(name, *x.shape[:2], self.directions.shape[1]), self.rows(cut)
        start = out if offset is None else offset
        return torch.baddbmm(start, x, rows.mT, beta=int(offset is not None), alpha=self.scale * LOG2E, out=out)

    def rows(self, cut: Cut) -> Float[Tensor, "m f d"]:
        """The directions of the heads of a cut."""
        return self.directions.index_select(0, self.head[cut.heads])

    def offset(self, x: Float[Tensor, "m n d"]) -> Float[Tensor, "m n 1"]:
        """What is left of each row's exponents: -|x|^2 / 2, in units of log 2."""
        return x.square().sum(-1, keepdim=True) * (-0.5 * self.scale**2 * LOG2E)


def lowest(dtype: torch.dtype) -> float:
    """A shift so low that nothing weighs anything against it, but which can be doubled."""
    return torch.finfo(dtype).min / 4


def least(dtype: torch.dtype) -> float:
    """Sums of weights below it count as nothing, so that no gradient overflows."""
    return torch.finfo(dtype).tiny ** 0.75

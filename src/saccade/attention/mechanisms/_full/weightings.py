"""What becomes of the scores of one query: a softmax, one over the highest only, or their positive parts.

Sources: softmax (Vaswani et al. 2017); "Replacing softmax with ReLU in Vision Transformers" (Wortsman et al. 2023);
top-k (Zhao et al. 2019, "Explicit Sparse Transformer"; Gupta et al. 2021, "Memory-efficient Transformers via Top-k
Attention").

Cost: a few passes over the scores; to find the k highest takes as long as two matrix products or more.
"""

import math
from dataclasses import dataclass

import torch

from saccade.attention.backends._tiles import LOG2E, Softmax, Workspace
from saccade.attention.mechanisms._full.scored_chunks import Rounding, Weighting
from saccade.shapes import Float, Tensor

SOFTMAX = Softmax(scale=1.0, dropout=0.0, seed=0)


@dataclass(frozen=True)
class SoftmaxWeights(Weighting):
    """exp(score), divided by the sum over all visible keys."""

    unit = LOG2E
    kept = 1

    def forward(
        self,
        work: Workspace,
        scores: Float[Tensor, "m r k"],
        v: Float[Tensor, "m k e"],
        visible: Float[Tensor, "m r 1"],
        rounding: Rounding | None,
        out: Float[Tensor, "m r e"],
    ) -> Float[Tensor, "m r 1"]:
        """Keeps the log-sum-exp."""
        return SOFTMAX.forward(work, scores, v, 0, out)

    def backward(
        self,
        work: Workspace,
        scores: Float[Tensor, "m r k"],
        v: Float[Tensor, "m k e"],
        visible: Float[Tensor, "m r 1"],
        rounding: Rounding | None,
        grad: Float[Tensor, "m r e"],
        kept: Float[Tensor, "m r 1"],
    ) -> tuple[Float[Tensor, "m r k"], Float[Tensor, "m r k"]]:
        """A chunk holds whole rows."""
        return SOFTMAX.backward(work, scores, kept, v, grad, None, 0)


@dataclass(frozen=True)
class TopKWeights(Weighting):
    """A softmax over the highest scores of each query.

    Attributes:
        count: how many; all that may equal the lowest of them but for rounding stay as well. Equal keys get scores
            that differ by it, and would else be chosen by their places.
    """

    unit = LOG2E
    kept = 2
    compares = True
    count: int

    def forward(
        self,
        work: Workspace,
        scores: Float[Tensor, "m r k"],
        v: Float[Tensor, "m k e"],
        visible: Float[Tensor, "m r 1"],
        rounding: Rounding | None,
        out: Float[Tensor, "m r e"],
    ) -> Float[Tensor, "m r 2"]:
        """Keeps the log-sum-exp, and what the highest value of a score must reach to count."""
        assert rounding is not None
        cut = lowest_of_highest(_off(work, scores, rounding, -1), self.count)
        scores.masked_fill_(_off(work, scores, rounding, 1) < cut, -math.inf)
        return torch.cat([SOFTMAX.forward(work, scores, v, 0, out), cut], -1)

    def backward(
        self,
        work: Workspace,
        scores: Float[Tensor, "m r k"],
        v: Float[Tensor, "m k e"],
        visible: Float[Tensor, "m r 1"],
        rounding: Rounding | None,
        grad: Float[Tensor, "m r e"],
        kept: Float[Tensor, "m r 2"],
    ) -> tuple[Float[Tensor, "m r k"], Float[Tensor, "m r k"]]:
        """Only what was kept has a gradient."""
        assert rounding is not None
        lse, cut = kept.split(1, -1)
        scores.masked_fill_(_off(work, scores, rounding, 1) < cut, -math.inf)
        return SOFTMAX.backward(work, scores, lse.contiguous(), v, grad, None, 0)


@dataclass(frozen=True)
class ReluWeights(Weighting):
    """max(score, 0), divided by the number of visible keys: the weights of a query need not sum to one."""

    unit = 1.0
    kept = 0

    def forward(
        self,
        work: Workspace,
        scores: Float[Tensor, "m r k"],
        v: Float[Tensor, "m k e"],
        visible: Float[Tensor, "m r 1"],
        rounding: Rounding | None,
        out: Float[Tensor, "m r e"],
    ) -> Float[Tensor, "m r 0"]:
        """Divided behind the product, where there is less to divide."""
        torch.bmm(scores.relu_(), v, out=out).div_(visible.clamp(min=1))
        return out[..., :0]

    def backward(
        self,
        work: Workspace,
        scores: Float[Tensor, "m r k"],
        v: Float[Tensor, "m k e"],
        visible: Float[Tensor, "m r 1"],
        rounding: Rounding | None,
        grad: Float[Tensor, "m r e"],
        kept: Float[Tensor, "m r 0"],
    ) -> tuple[Float[Tensor, "m r k"], Float[Tensor, "m r k"]]:
        """1 above zero, nothing below and at zero."""
        share = 1 / visible.clamp(min=1)
        back = torch.bmm(grad * share, v.mT, out=work.take("grad_scores", *scores.shape))
        torch.ops.aten.threshold_backward.grad_input(back, scores, 0, grad_input=back)
        return scores.relu_().mul_(share), back


def _off(work: Workspace, scores: Float[Tensor, "m r k"], rounding: Rounding, sign: int) -> Float[Tensor, "m r k"]:
    """The lowest (-1) or highest (1) value that each score may have in exact arithmetic.

    Whatever equals the k-th highest exactly reaches the k-th highest of the lowest values with its highest one.
    """
    out = work.take("off", *scores.shape)
    return torch.addcmul(scores, rounding.queries, rounding.keys.mT, value=sign, out=out)


def lowest_of_highest(scores: Float[Tensor, "m r k"], count: int) -> Float[Tensor, "m r 1"]:
    """The `count`-th highest of each row, -inf where there are no more than `count`."""
    if scores.shape[-1] <= count:
        return scores.new_full((*scores.shape[:-1], 1), -math.inf)
    return _highest(scores, count)[..., -1:]


def _highest(scores: Float[Tensor, "m r k"], count: int) -> Float[Tensor, "m r s"]:
    """The `count` highest of each row, in order.

    `topk` takes long, so it first chooses among the maxima of groups: the `count` groups with the highest maxima
    hold the `count` highest scores.
    """
    n = scores.shape[-1]
    size = 2 ** round(math.log2(n / count) / 2)
    groups = n // size
    if size < 2 or groups <= count:
        return scores.topk(count, -1).values
    grouped = scores[..., : groups * size].unflatten(-1, (size, groups))
    chosen = grouped.amax(-2).topk(count, -1, sorted=False).indices
    found = grouped.gather(-1, chosen[..., None, :].expand(*grouped.shape[:-1], -1)).flatten(-2)
    rest = scores[..., groups * size :]
    return (torch.cat([found, rest], -1) if rest.shape[-1] else found).topk(count, -1).values

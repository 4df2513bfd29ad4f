"""Softmax over one rectangular batch of tiles, forward and backward, in workspaces that are used again and again.

On a CPU a fresh large result costs more than the arithmetic that fills it, so every product here is written
into a buffer that stays in cache, and with the thread from call to call (some 10 MB): two batched matrix products and
a few passes over the scores going forward, five products coming back. Weights are never stored: the backward pass
rebuilds them from the log-sum-exp.
"""

import math
import threading
from dataclasses import dataclass, field

import torch

from saccade.shapes import Bool, Float, Int, Tensor

LOG2E = math.log2(math.e)
"""The scores are kept in units of log 2: `exp2` is three times as fast as `exp`."""


@dataclass
class Workspace:
    """Named buffers of one dtype and device, grown on demand and handed out again for each chunk."""

    dtype: torch.dtype
    device: torch.device
    buffers: dict[str, Tensor] = field(default_factory=dict)

    def take(self, name: str, *shape: int) -> Tensor:
        """A contiguous buffer of this shape with undefined contents."""
        size = math.prod(shape)
        buffer = self.buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = self.buffers[name] = torch.empty(size, dtype=self.dtype, device=self.device)
        return buffer[:size].view(shape)

    def gather(self, name: str, tiles: Float[Tensor, "n s d"], index: Int[Tensor, " m"]) -> Float[Tensor, "m s d"]:
        """The indexed tiles, in this workspace's dtype."""
        buffer = self.take(name, len(index), *tiles.shape[1:])
        if tiles.dtype == self.dtype:
            return torch.index_select(tiles, 0, index, out=buffer)
        return buffer.copy_(tiles.index_select(0, index))


class _Kept(threading.local):
    """The workspaces of one thread."""

    def __init__(self) -> None:
        self.workspaces: dict[tuple[object, ...], Workspace] = {}


KEPT = _Kept()


def workspace(dtype: torch.dtype, device: torch.device) -> Workspace:
    """A workspace for one call at a time. On a CPU it is that of the call before: fresh memory is slow memory there."""
    if device.type != "cpu":
        return Workspace(dtype, device)
    key = dtype, torch.is_inference_mode_enabled()  # what is made in inference mode can't be written to outside
    return KEPT.workspaces.setdefault(key, Workspace(dtype, device))


@dataclass(frozen=True)
class Softmax:
    """What a chunk of scores goes through besides the queries and keys.

    Attributes:
        scale: factor on the scores.
        dropout: share of the weights that are dropped.
        seed: from which, with the chunk's number, the dropped weights are drawn, the same forward and backward.
    """

    scale: float
    dropout: float
    seed: int

    def scores(
        self,
        work: Workspace,
        q: Float[Tensor, "m q d"],
        k: Float[Tensor, "m k d"],
        bias: Float[Tensor, "#m q k"] | None,
        hidden: Bool[Tensor, "m k"] | None,
    ) -> Float[Tensor, "m q k"]:
        """Scaled scores in units of log 2; -inf where a pair is not allowed."""
        out = work.take("scores", len(q), q.shape[1], k.shape[1])
        torch.baddbmm(out, q, k.mT, beta=0, alpha=self.scale * LOG2E, out=out)
        if bias is not None:
            out.add_(bias)
        return out if hidden is None else out.masked_fill_(hidden[:, None], -math.inf)

    def keep(self, work: Workspace, like: Float[Tensor, "m q k"], chunk: int) -> Float[Tensor, "m q k"] | None:
        """Factors 0 or 1 / (1 - dropout) on the weights of a chunk, the same each time."""
        if not self.dropout:
            return None
        generator = torch.Generator(like.device).manual_seed(self.seed + chunk)
        kept = work.take("kept", *like.shape).bernoulli_(1 - self.dropout, generator=generator)
        return kept.div_(1 - self.dropout)

    def forward(
        self,
        work: Workspace,
        scores: Float[Tensor, "m q k"],
        v: Float[Tensor, "m k e"],
        chunk: int,
        out: Float[Tensor, "m q e"],
    ) -> Float[Tensor, "m q 1"]:
        """Fills `out`, gives the log-sum-exp (base 2): zeros and -inf where nothing is seen. Spoils the scores."""
        highest = torch.amax(scores, -1, keepdim=True, out=work.take("highest", *scores.shape[:2], 1))
        scores.sub_(highest.clamp_(min=torch.finfo(scores.dtype).min)).exp2_()
        total = torch.sum(scores, -1, keepdim=True, out=work.take("total", *scores.shape[:2], 1))
        kept = self.keep(work, scores, chunk)
        if kept is not None:
            scores.mul_(kept)
        lse = total.log2().add_(highest)
        torch.bmm(scores, v, out=out).div_(total.clamp_(min=torch.finfo(total.dtype).tiny))
        return lse

    def backward(
        self,
        work: Workspace,
        scores: Float[Tensor, "m q k"],
        lse: Float[Tensor, "m q 1"],
        v: Float[Tensor, "m k e"],
        grad: Float[Tensor, "m q e"],
        inner: Float[Tensor, "m q 1"] | None,
        chunk: int,
    ) -> tuple[Float[Tensor, "m q k"], Float[Tensor, "m q k"]]:
        """The weights that met the values, and the gradient of the scores, in workspaces. Spoils the scores.

        `inner` is the product of output and gradient; `None` where the piece holds all keys of its queries.
        """
        weights = scores.sub_(lse.masked_fill(lse == -math.inf, 0)).exp2_()
        grad_weights = torch.bmm(grad, v.mT, out=work.take("grad_scores", *weights.shape))
        kept = self.keep(work, weights, chunk)
        if kept is not None:
            grad_weights.mul_(kept)
            kept.mul_(weights)
        if inner is not None:
            grad_weights.sub_(inner).mul_(weights)
        else:
            torch.ops.aten._softmax_backward_data.out(grad_weights, weights, -1, weights.dtype, grad_input=grad_weights)
        return weights if kept is None else kept, grad_weights

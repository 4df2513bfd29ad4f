"""Normalisations of a Transformer: torch's LayerNorm and RMSNorm, and batch normalisation for sequences.

`NORMS` is the list: each is built from the model width. Those of torch look at one token; `SequenceBatchNorm`
(Ioffe and Szegedy 2015, as Shen et al. 2020 examine it in Transformers) at all real tokens of the batch.

Cost: O(n c) time; batch normalisation sends 2 c + 1 numbers between the workers of data-parallel training.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.nn.functional import all_reduce

from saccade.errors import must_be, whole_number
from saccade.shapes import Bool, Float, Tensor


class SequenceBatchNorm(nn.Module):
    """Each channel with mean 0 and variance 1 over the real tokens of a batch, then scaled and shifted as it learns.

    In training the batch is that of all data-parallel workers together; gradients flow through it. The running averages
    `m <- p m + (1 - p) m_batch` of mean and variance, both over the tokens and not one less, are what evaluation uses:
    there a token's result depends on itself alone. A batch without real tokens leaves them as they are.

    With gradient accumulation or activation checkpointing each forward pass in training counts as a batch.

    Args:
        width: channels c.
        momentum: p, the share of the running averages that stays.
        eps: what is added to a variance.

    Attributes:
        mean: the running mean `[c]`.
        variance: the running variance `[c]`.

    Raises:
        ValueError: a width below 1, a share outside 0 to 1, or a negative eps.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int, momentum: float = 0.9, eps: float = 1e-5) -> None:
        super().__init__()
        whole_number("width", width)
        if not 0 <= momentum <= 1:
            raise ValueError(must_be("momentum", "from 0 to 1", momentum))
        if eps < 0:
            raise ValueError(must_be("eps", "at least 0", eps))
        self.width, self.momentum, self.eps = width, momentum, eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, x: Float[Tensor, "b n c"], key_mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n c"]:
        """The normalised tokens, computed in fp32 or better.

        Args:
            x: tokens.
            key_mask: True for real ones; all are, if not given. The others count nowhere: they are normalised as
                zeros would be.

        Raises:
            ValueError: another width.
        """
        if x.shape[-1] != self.width:
            raise ValueError(must_be("x", f"of shape [batch, length, {self.width}]", tuple(x.shape)))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if key_mask is not None:
            wide = wide.masked_fill(~key_mask[..., None], 0)
        with torch.autocast(x.device.type, enabled=False):
            mean, variance = self._of_batch(wide, key_mask) if self.training else (self.mean, self.variance)
            scale = self.weight * torch.rsqrt(variance.to(wide) + self.eps)
            return ((wide - mean.to(wide)) * scale + self.bias).to(x.dtype)

    def _of_batch(self, x: Tensor, key_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and variance over all workers, which the running averages then have heard of."""
        real = x.new_ones(x.shape[:2]) if key_mask is None else key_mask.to(x)
        totals = _over_workers(torch.cat([x.sum((0, 1)), real.sum()[None]]))
        count = totals[-1].detach()
        mean = totals[:-1] / count.clamp(min=1)
        # A second sum, of what is left: squares of raw numbers would lose the digits of a small variance.
        variance = _over_workers(((x - mean).square() * real[..., None]).sum((0, 1))) / count.clamp(min=1)
        with torch.no_grad():
            for running, new in ((self.mean, mean), (self.variance, variance)):
                moved = self.momentum * running + (1 - self.momentum) * new.to(running)
                running.copy_(torch.where(count > 0, moved, running))
        return mean, variance

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.width}, momentum={self.momentum}, eps={self.eps}"


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layer": nn.LayerNorm,
    "rms": nn.RMSNorm,
    "batch": SequenceBatchNorm,
}


def normalised(
    norm: nn.Module, x: Float[Tensor, "b n c"], key_mask: Bool[Tensor, "b n"] | None
) -> Float[Tensor, "b n c"]:
    """The tokens normalised, by one that knows which are real if it asks for that."""
    return norm(x, key_mask) if isinstance(norm, SequenceBatchNorm) else norm(x)


def refuse_later_tokens(normalisation: str, causal: bool, training: bool) -> None:
    """Refuse to train a causal model with averages over the whole batch, in which each token hears of later ones.

    Raises:
        ValueError: it would be one.
    """
    if causal and training and normalisation == "batch":
        reason = "the averages of a training batch know later tokens"
        raise ValueError(
            must_be("normalisation", f"layer or rms where attention is causal, as {reason}", normalisation)
        )


def _over_workers(total: Tensor) -> Tensor:
    """The sum over the workers of data-parallel training, each of which gets gradients from all."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return all_reduce(total)
    return total

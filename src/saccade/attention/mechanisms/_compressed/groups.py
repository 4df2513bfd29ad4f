"""Groups of tokens that stand in the place of tokens: a strided convolution that makes them, and attention to them.

Source: the convolution of memory-compressed attention (Liu et al. 2018, section 4.2.3). That queries which see the
same groups can be spread over heads is ours.

Cost: the convolution is one product of matrices. Causally the pairs are those below the diagonal of n / stride steps,
for each of `stride` queries, in torch's fused kernel; with a mask they are visited in tiles.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch.nn.functional import pad

from saccade.attention.dispatch import attend, computed
from saccade.attention.patterns import Causal
from saccade.shapes import Bool, Float, Shaped, Tensor

CAUSAL = Causal()


def windows(
    x: Shaped[Tensor, "b g n d"], groups: int, kernel: int, stride: int, count: int
) -> Shaped[Tensor, "b s m f"]:
    """All that each of the first `count` kernels covers, in one row: tap by tap, the heads of one convolution group.

    Zeros stand behind the last position.
    """
    x = rearrange(x, "b (s t) n d -> b s n (t d)", s=groups)
    length, n, width = (stride * (count - 1) + kernel if count else 0), x.shape[2], x.shape[3]
    x = x[:, :, :length] if length <= n else pad(x, (0, 0, 0, length - n))
    if kernel == stride or not count:
        return x.unflatten(2, (count, kernel)).flatten(3)
    return x.flatten(2).unfold(2, kernel * width, stride * width)


def convolved(
    x: Float[Tensor, "b g n d"], weight: Float[Tensor, "o i t"], stride: int, count: int
) -> Float[Tensor, "b g m d"]:
    """The first `count` results of a convolution over positions, with weights as `torch.nn.Conv1d` has them."""
    d = x.shape[3]
    groups = weight.shape[0] // weight.shape[1]
    if torch.compiler.is_exporting():
        rows = _exported_windows(rearrange(x, "b (s t) n d -> b s n (t d)", s=groups), 2, weight.shape[2], stride)
        found = torch.einsum("bsmit,soit->bsmo", rows, weight.to(x.dtype).unflatten(0, (groups, -1)))
        return rearrange(found, "b s m (t d) -> b (s t) m d", d=d)
    rows = windows(x, groups, weight.shape[2], stride, count)
    # One product of matrices, which on a CPU takes a third of the time of torch's strided convolution.
    taps = rearrange(weight.to(x.dtype), "(s o) i t -> s (t i) o", s=groups)
    found = torch.einsum("bsmf,sfo->bsmo", rows, taps)
    return rearrange(found, "b s m (t d) -> b (s t) m d", t=weight.shape[1] // d, d=d)


def any_real(key_mask: Bool[Tensor, "b n"], kernel: int, stride: int, count: int) -> Bool[Tensor, "b m"]:
    """Which of the first `count` kernels cover a real token."""
    if torch.compiler.is_exporting():
        return _exported_windows(key_mask, 1, kernel, stride).any(-1)
    return windows(key_mask[:, None, :, None], 1, kernel, stride, count).any(-1)[:, 0]


def _exported_windows(x: Shaped[Tensor, "..."], dim: int, kernel: int, stride: int) -> Shaped[Tensor, "..."]:
    """What each kernel covers, in a new last axis, for `torch.export`, which may not ask how the length divides.

    There are `n // stride + 2` kernels, one or two more than begin within the sequence, and so never a single one,
    which a tracer would take for fixed.
    """
    more = stride * (x.shape[dim] // stride + 1) + kernel - x.shape[dim]
    return pad(x, (0, 0) * (x.ndim - 1 - dim) + (0, more)).unfold(dim, kernel, stride)


def in_steps(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m e"],
    key_mask: Bool[Tensor, "b m"] | None,
    stride: int,
    start: int,
) -> Float[Tensor, "b h q e"]:
    """Attention in which the query at place p sees the keys 0 .. p // stride, and none if p is below 0.

    Of every `stride` queries that see the same keys, each goes to a head of its own. There, query t sees the keys
    0 .. t, which is plain causal attention, with no array over pairs. Key heads become examples, for so nothing is
    copied where each query head has a key head.

    Args:
        q: queries.
        k: keys.
        v: values.
        key_mask: which keys are visible at all.
        stride: how many queries in a row see the same keys.
        start: the place of the first query.
    """
    if torch.compiler.is_exporting():
        if torch.onnx.is_in_onnx_export():
            return _masked_steps(q, k, v, key_mask, stride, start)
        return _in_steps(q, k, v, key_mask, stride, start)
    (b, _, n, _), g = q.shape, k.shape[1]
    blind, start = min(max(0, -start), n), max(0, start)
    first, ahead = (0, start) if start <= stride else divmod(start, stride)
    end = ahead + n - blind
    q = _padded(q[:, :, blind:], ahead, -end % stride)
    turned = rearrange(q, "b (g x) (t r) d -> (b g) (x r) t d", g=g, r=stride)
    k, v = (rearrange(each, "b g m d -> (b g) 1 m d") for each in (k, v))
    # With a mask torch's kernel computes all pairs and holds them; tiles hold few, and skip what comes later.
    mask, backend = (None, "auto") if key_mask is None else (key_mask.repeat_interleave(g, 0), "blockwise")
    out = attend(turned, k, v, CAUSAL, key_mask=mask, q_start=first, backend=backend)
    out = rearrange(out, "(b g) (x r) t e -> b (g x) (t r) e", b=b, g=g, r=stride)
    return _padded(out[:, :, ahead:end], blind, 0)


@torch.library.custom_op("saccade::in_steps", mutates_args=())
def _in_steps(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, stride: int, start: int) -> Tensor:
    """The same as one operator of an exported graph, in which the length may vary."""
    return in_steps(q, k, v, key_mask, stride, start).contiguous()


@_in_steps.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, stride: int, start: int) -> Tensor:
    return q.new_empty(*q.shape[:3], v.shape[3])


def _masked_steps(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m e"],
    key_mask: Bool[Tensor, "b m"] | None,
    stride: int,
    start: int,
) -> Float[Tensor, "b h q e"]:
    """The same for ONNX, which has no such operator: with a mask over all pairs of queries and keys."""
    place = torch.arange(q.shape[2], device=q.device)[:, None] + start
    seen = stride * torch.arange(k.shape[2], device=k.device) <= place
    bias = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill(~seen, -torch.inf)
    return attend(q, k, v, key_mask=key_mask, bias=bias[None, None])


def _padded(x: Float[Tensor, "b h n d"], before: int, behind: int) -> Float[Tensor, "b h n2 d"]:
    return pad(x, (0, 0, before, behind)) if before or behind else x


class StepsCost(NamedTuple):
    """What `in_steps` takes for one example.

    Attributes:
        rows: queries with those that fill up the first and the last step.
        pairs: pairs that are seen, over all heads.
        visited: pairs that are computed.
        kept: bytes that training keeps beside queries, keys and values.
    """

    rows: int
    pairs: int
    visited: int
    kept: int


def steps_cost(n: int, start: int, stride: int, slots: int, heads: int, kv_heads: int, value_dim: int) -> StepsCost:
    """The cost of `n` queries from the place `start` on, with so many keys."""
    end = start + n
    steps = max(0, -(-end // stride))
    if not steps or not slots:
        return StepsCost(0, 0, 0, 0)
    visited, mask = computed(CAUSAL.bind(steps, slots, heads=heads * stride))
    rows, pairs = steps * stride, heads * (_seen(end, stride, slots) - _seen(max(0, start), stride, slots))
    out_is_a_view = start >= 0 and (heads == kv_heads or stride == 1)
    return StepsCost(rows, pairs, visited, 4 * (mask + (0 if out_is_a_view else rows * heads * value_dim)))


def _seen(places: int, stride: int, slots: int) -> int:
    """Keys that the first so many places see together: p // stride + 1 each, or all."""
    full, over = divmod(min(places, stride * slots), stride)
    return stride * full * (full + 1) // 2 + over * (full + 1) + max(0, places - stride * slots) * slots

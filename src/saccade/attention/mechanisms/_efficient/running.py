"""The running softmax: each query weighs positions by softmaxes, one for each feature, over those up to its own.

In chunks: within a chunk pair by pair (`factors.py`), before it through sums that are carried from chunk to chunk.

Cost: O(n d (e + chunk)) time; memory O(n (d + e)) and workspaces of some MB.
"""

from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from saccade.attention.backends._tiles import Workspace
from saccade.attention.mechanisms._efficient.factors import (
    Factors,
    factors,
    from_normaliser,
    from_pairs,
    normaliser,
    pairs_of,
)
from saccade.attention.mechanisms._efficient.features import Running, lowest, shift_of
from saccade.attention.mechanisms._efficient.plain import plain_running_softmax
from saccade.attention.mechanisms._feature_map import cuts, room
from saccade.shapes import Float, Tensor

CHUNK = 64
"""Positions whose pairs are computed, a power of two."""


def running_softmax(
    q: Float[Tensor, "m n d"], k: Float[Tensor, "m n d"], v: Float[Tensor, "m n e"], earlier: Running | None
) -> Float[Tensor, "m n e"]:
    """What each query gets from the keys up to its own position, and sums over earlier ones; hidden keys are -inf."""
    if torch.compiler.is_exporting():
        form = plain_running_softmax if torch.onnx.is_in_onnx_export() else _as_operator
        return form(q, k, v, *(earlier or nothing(k, v.shape[2])))
    n = q.shape[1]
    if not n:
        return v
    if fill := whole(n) - n:  # what is added stands behind all queries, where no real one sees it
        q, k, v = (pad(x, (0, 0, 0, fill)) for x in (q, k, v))
    if earlier is None:
        earlier = nothing(k, v.shape[2])
    flat = (x.contiguous() for x in (q, k, v, shift_of(earlier.peak.detach())))
    return _Running.apply(*flat, earlier.z, earlier.s)[:, :n]


@torch.library.custom_op("saccade::running_softmax", mutates_args=())
def _as_operator(q: Tensor, k: Tensor, v: Tensor, peak: Tensor, z: Tensor, s: Tensor) -> Tensor:
    """The same as one operator of an exported graph, in which the length may vary."""
    return running_softmax(q, k, v, Running(peak, z, s)).contiguous()


@_as_operator.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, peak: Tensor, z: Tensor, s: Tensor) -> Tensor:
    return q.new_empty(*q.shape[:2], v.shape[2])


def nothing(k: Float[Tensor, "m n d"], value_dim: int) -> Running:
    """The sums over no keys."""
    shape = *k.shape[:-2], k.shape[-1]
    z, s = (k.new_zeros(*shape, dim) for dim in (1, value_dim))
    return Running(k.new_full((*shape, 1), lowest(k.dtype)), z, s)


def chunk_of(n: int) -> int:
    """The length of a chunk; a short input is one, of the next power of two."""
    return min(CHUNK, 1 << max(n - 1, 0).bit_length())


def whole(n: int) -> int:
    """The positions that are computed, in whole chunks."""
    return -(-n // chunk_of(n)) * chunk_of(n)


class _Part(NamedTuple):
    """What forward and backward both need of a cut, in chunks.

    Attributes:
        a: the query's features over `total`.
        total: the normaliser of each query and feature.
        by: factors of the exponentials.
        pairs: weights within chunks.
        s: the sums of values before each chunk.
        shift: shifts behind the cut.
    """

    a: Float[Tensor, "c n d"]
    total: Float[Tensor, "c n d"]
    by: Factors
    pairs: Float[Tensor, "c n n"]
    s: Float[Tensor, "c d e"]
    shift: Float[Tensor, "m 1 d"]


class _Running(torch.autograd.Function):
    """Sums carried from cut to cut; within a cut chunks, each with the sums before it and its own pairs."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, shift: Tensor, z: Tensor, s: Tensor) -> Tensor:
        work, out, begun = room(q), torch.empty_like(v), []
        carried = [x.clone() for x in (shift, z, s)]
        for cut in cuts(*q.shape[:2]):
            begun += [x[cut.heads].clone() for x in carried]
            q_c, k_c, v_c, out_c = (_chunked(cut.of(x)) for x in (q, k, v, out))
            part = _part(work, q_c, k_c, v_c, *(x[cut.heads] for x in carried))
            carried[0][cut.heads].copy_(part.shift)
            torch.bmm(part.pairs, v_c, out=out_c).baddbmm_(part.a.mul_(part.by.begin), part.s)
        ctx.save_for_backward(q, k, v, *begun)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, *begun = ctx.saved_tensors
        work, grad = room(q), grad.contiguous()
        grads = [torch.empty_like(x) for x in (q, k, v)]
        z_b, s_b = q.new_zeros(len(q), q.shape[2], 1), q.new_zeros(len(q), q.shape[2], v.shape[2])
        for number, cut in reversed(list(enumerate(cuts(*q.shape[:2])))):
            shift, z, s = begun[3 * number : 3 * number + 3]
            q_c, k_c, v_c, grad_c, *grads_c = (_chunked(cut.of(x)) for x in (q, k, v, grad, *grads))
            part = _part(work, q_c, k_c, v_c, shift, z.clone(), s.clone())
            _back(work, part, v_c, grad_c, (z_b[cut.heads], s_b[cut.heads]), *grads_c)
        return *grads, None, z_b, s_b


def _chunked(x: Float[Tensor, "m n d"]) -> Float[Tensor, "c _n d"]:
    """Each chunk a batch of its own."""
    return x.view(-1, chunk_of(x.shape[1]), x.shape[2])


def _part(
    work: Workspace,
    q: Float[Tensor, "c n d"],
    k: Float[Tensor, "c n d"],
    v: Float[Tensor, "c n e"],
    shift: Float[Tensor, "m 1 d"],
    z: Float[Tensor, "m d 1"],
    s: Float[Tensor, "m d e"],
) -> _Part:
    """All that comes before the output. The sums before the cut, z and s, become those behind it."""
    by, shift = factors(work, k, shift)
    own = torch.bmm(by.end.mT, v, out=work.take("s", len(v), k.shape[2], v.shape[2]))
    z, s = _carried(work, "z", by.end.sum(1)[..., None], by.fall, z), _carried(work, "s", own, by.fall, s)
    total = normaliser(work, by, z)
    a = torch.softmax(q, -1, out=work.take("a", *q.shape)).div_(total)
    return _Part(a, total, by, pairs_of(work, by, a), s, shift)


def _back(
    work: Workspace,
    part: _Part,
    v: Float[Tensor, "c n e"],
    grad: Float[Tensor, "c n e"],
    behind: tuple[Float[Tensor, "m d 1"], Float[Tensor, "m d e"]],
    to_q: Float[Tensor, "c n d"],
    to_k: Float[Tensor, "c n d"],
    to_v: Float[Tensor, "c n e"],
) -> None:
    """Write the gradients. Those of z and s behind the cut become those of z and s before it."""
    a, total, by, pairs, s, _ = part
    to_pairs, to_a = work.take("to_pairs", *pairs.shape), work.take("to_a", *a.shape)
    torch.bmm(pairs.mT, grad, out=to_v)
    from_pairs(work, by, a, torch.bmm(grad, v.mT, out=to_pairs), to_a, to_k)
    product = work.take("product", *a.shape)
    to_a.addcmul_(by.begin, torch.bmm(grad, s.mT, out=product))
    shares = to_a.mul_(a)  # the gradient of the logarithm of a
    torch.sub(shares, torch.mul(a, total, out=product).mul_(shares.sum(-1, keepdim=True)), out=to_q)
    to_total = shares.div_(total).neg_()
    own = torch.bmm(torch.mul(a, by.begin, out=product).mT, grad, out=work.take("s", *s.shape))
    own_z = torch.mul(to_total, by.begin, out=product).sum(1)[..., None]
    z_b, s_b = (
        _carried(work, f"back {n}", x, by.fall, b, -1) for n, x, b in zip("zs", (own_z, own), behind, strict=True)
    )
    to_v.baddbmm_(by.end, s_b)
    to_k.addcmul_(by.end, torch.bmm(v, s_b.mT, out=product).add_(z_b.mT))
    from_normaliser(by, to_total, to_k)


def _carried(
    work: Workspace,
    name: str,
    own: Float[Tensor, "c d e"],
    fall: Float[Tensor, "c d 1"],
    carried: Float[Tensor, "m d e"],
    step: int = 1,
) -> Float[Tensor, "c d e"]:
    """What is carried to each chunk, from the chunk before it, or with a step of -1 from behind.

    `carried`, what comes to the first of them, becomes what leaves the last.
    """
    chunks = zip(*(x.unflatten(0, (len(carried), -1)).unbind(1)[::step] for x in (own, fall)), strict=True)
    found = work.take(f"carried {name}", len(carried), len(own) // len(carried) + 1, *carried.shape[1:])
    into = found.unbind(1)[::step]
    into[0].copy_(carried)
    for number, (added, sunk) in enumerate(chunks):
        into[number + 1].copy_(added).addcmul_(into[number], sunk)
    carried.copy_(into[-1])
    return (found[:, :-1] if step == 1 else found[:, 1:]).flatten(0, 1)

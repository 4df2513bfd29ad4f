"""Attention by features: weights phi(q) . phi(k), each row divided by its sum, without ever making the weights.

What the kernel mechanisms share ("Transformers are RNNs", Katharopoulos et al. 2020): keys and values enter as sums
S = sum phi(k) v^T and z = sum phi(k). Features are made in a workspace, forward and again backward, and never kept.
The causal forms stand beside it: `_causal_features.py`, and `_scaled_sums.py` where what is past fades.

Cost: O(n f e) time; memory O(n e) and workspaces of a few MB. `f` features.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from saccade.attention.backends._tiles import Workspace, workspace
from saccade.shapes import Float, Tensor

CHUNK = 64
"""Positions computed pair by pair in the causal form: 64 and 128 are fastest (docs/log.md)."""

ROWS = 2048
"""Positions at a time, over all heads at hand: their features stay in cache."""


class Cut(NamedTuple):
    """All rows of some heads, or some rows of one head: they lie together in memory."""

    heads: slice
    rows: slice

    def of(self, x: Float[Tensor, "m n d"]) -> Float[Tensor, "m2 n2 d"]:
        """Those rows."""
        return x[self.heads, self.rows]


class FeatureMap(ABC):
    """phi and its derivative. Made for a call, so that it may hold tensors; they get no gradient from here."""

    @abstractmethod
    def size(self, dim: int) -> int:
        """How many features a vector of `dim` numbers has."""

    @abstractmethod
    def features(self, work: Workspace, name: str, x: Float[Tensor, "m n d"], cut: Cut) -> Float[Tensor, "m n f"]:
        """phi(x), in the buffer `name` of the workspace; `cut` says which heads and rows of all they are."""

    @abstractmethod
    def slope(
        self, x: Float[Tensor, "m n d"], phi: Float[Tensor, "m n f"], grad: Float[Tensor, "m n f"], cut: Cut
    ) -> Float[Tensor, "m n d"]:
        """The gradient of x from phi(x) and its gradient, both of which may be spoilt."""


class Sums(NamedTuple):
    """What queries need to know of keys and values, of each head.

    Attributes:
        s: the paper's S, the sum of phi(k) v^T.
        z: the paper's z, the sum of phi(k).
    """

    s: Float[Tensor, "m f e"]
    z: Float[Tensor, "m f 1"]


def sums_of(
    k: Float[Tensor, "m k d"], v: Float[Tensor, "m k e"], real: Float[Tensor, "m k 1"] | None, phi: FeatureMap
) -> Sums:
    """The sums over all keys of each head; `real` is 0 for hidden ones and 1 for others."""
    if torch.compiler.is_exporting():
        phi_k = exported_features("k", k, real, phi)
        return Sums(phi_k.mT @ v, phi_k.sum(1)[..., None])
    return Sums(*_SumsOf.apply(k.contiguous(), v.contiguous(), real, phi))


def asked(q: Float[Tensor, "m q d"], sums: Sums, phi: FeatureMap, least: float = 0.0) -> Float[Tensor, "m q e"]:
    """What each query gets from the sums of its head, divided as `divisor` says; zeros where they are empty."""
    if torch.compiler.is_exporting():
        phi_q = exported_features("q", q, None, phi)
        return phi_q @ sums.s / divisor(phi_q @ sums.z, least)
    return _Asked.apply(q.contiguous(), *sums, phi, least)


def exported_features(
    name: str, x: Float[Tensor, "m n d"], real: Float[Tensor, "m n 1"] | None, phi: FeatureMap
) -> Float[Tensor, "m n f"]:
    """The features of all rows at once, zero for hidden ones, for `torch.export`.

    A graph holds no loop whose turns follow a length that may vary, so there features take memory: O(n f).
    """
    x = x.detach()  # a graph is for inference, and what is written into a workspace must not be asked for gradients
    found = phi.features(Workspace(x.dtype, x.device), name, x, Cut(slice(0, x.shape[0]), slice(0, x.shape[1])))
    return found if real is None else found * real


def room(like: Tensor) -> Workspace:
    """The thread's workspace; one of its own where the computation is only traced."""
    make = Workspace if torch.compiler.is_compiling() else workspace
    return make(like.dtype, like.device)


def cuts(heads: int, rows: int) -> Iterator[Cut]:
    """All rows of all heads, in order, some thousands at a time."""
    if rows <= ROWS:
        step = max(1, ROWS // max(rows, 1))
        yield from (Cut(slice(head, head + step), slice(0, rows)) for head in range(0, heads, step))
    else:
        for head in range(heads):
            yield from (Cut(slice(head, head + 1), slice(row, row + ROWS)) for row in range(0, rows, ROWS))


def keys_of(
    work: Workspace, k: Float[Tensor, "m n d"], real: Float[Tensor, "m n 1"] | None, cut: Cut, phi: FeatureMap
) -> Float[Tensor, "m2 n2 f"]:
    """The features of some keys, zero for hidden ones."""
    return masked(phi.features(work, "k", cut.of(k), cut), real, cut)


def masked(x: Float[Tensor, "m2 n2 f"], real: Float[Tensor, "m n 1"] | None, cut: Cut) -> Float[Tensor, "m2 n2 f"]:
    return x if real is None else x.mul_(cut.of(real))


class _SumsOf(torch.autograd.Function):
    """Keys and values into sums."""

    @staticmethod
    def forward(ctx: Any, k: Tensor, v: Tensor, real: Tensor | None, phi: FeatureMap) -> tuple[Tensor, Tensor]:
        work, features = room(k), phi.size(k.shape[2])
        s, z = k.new_zeros(len(k), features, v.shape[2]), k.new_zeros(len(k), features, 1)
        for cut in cuts(*k.shape[:2]):
            phi_k = keys_of(work, k, real, cut, phi)
            s[cut.heads].baddbmm_(phi_k.mT, cut.of(v))
            z[cut.heads].add_(phi_k.sum(1)[..., None])
        ctx.save_for_backward(k, v, real)
        ctx.phi = phi
        return s, z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_s: Tensor, grad_z: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        k, v, real = ctx.saved_tensors
        work, grad_k, grad_v = room(k), torch.empty_like(k), torch.empty_like(v)
        for cut in cuts(*k.shape[:2]):
            phi_k = keys_of(work, k, real, cut, ctx.phi)
            torch.bmm(phi_k, grad_s[cut.heads], out=cut.of(grad_v))
            back = torch.bmm(cut.of(v), grad_s[cut.heads].mT, out=work.take("back", *phi_k.shape))
            back = masked(back.add_(grad_z[cut.heads].mT), real, cut)
            cut.of(grad_k).copy_(ctx.phi.slope(cut.of(k), phi_k, back, cut))
        return grad_k, grad_v, None, None


class _Asked(torch.autograd.Function):
    """Queries against sums."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, s: Tensor, z: Tensor, phi: FeatureMap, least: float) -> Tensor:
        work, rows = room(q), q.shape[:2]
        out, total = q.new_empty(*rows, s.shape[2]), q.new_empty(*rows, 1)
        for cut in cuts(*rows):
            phi_q = phi.features(work, "q", cut.of(q), cut)
            torch.bmm(phi_q, z[cut.heads], out=cut.of(total))
            torch.bmm(phi_q, s[cut.heads], out=cut.of(out)).div_(divisor(cut.of(total), least))
        ctx.save_for_backward(q, s, z, total)
        ctx.phi, ctx.least = phi, least
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, s, z, total = ctx.saved_tensors
        work, grad = room(q), grad.contiguous()
        grad_q, grad_s, grad_z = torch.empty_like(q), torch.zeros_like(s), torch.zeros_like(z)
        for cut in cuts(*q.shape[:2]):
            phi_q = ctx.phi.features(work, "q", cut.of(q), cut)
            to_sum = torch.div(
                cut.of(grad), divisor(cut.of(total), ctx.least), out=work.take("to_sum", *cut.of(grad).shape)
            )
            back = torch.bmm(to_sum, s[cut.heads].mT, out=work.take("back", *phi_q.shape))
            to_total = total_gradient(work, cut.of(total), ctx.least, (phi_q, back))
            grad_s[cut.heads].baddbmm_(phi_q.mT, to_sum)
            grad_z[cut.heads].baddbmm_(phi_q.mT, to_total)
            back.baddbmm_(to_total, z[cut.heads].mT)
            cut.of(grad_q).copy_(ctx.phi.slope(cut.of(q), phi_q, back, cut))
        return grad_q, grad_s, grad_z, None, None


def divisor(total: Float[Tensor, "*m n 1"], least: float) -> Float[Tensor, "*m n 1"]:
    """What the sum of weights divides by: its size, but at least `least`; without that itself, and 1 where it is 0."""
    return total.abs().clamp_(min=least) if least else total.masked_fill(total == 0, 1)


def total_gradient(
    work: Workspace, total: Float[Tensor, "m n 1"], least: float, *products: tuple[Tensor, Tensor]
) -> Float[Tensor, "m n 1"]:
    """The gradient of the sum of weights.

    It is the product of output and gradient with the sign turned, over the divisor; here from pairs of factors whose
    products, summed over the last axis, make up that product, because the output is not kept.
    """
    sums = (torch.mul(*pair, out=work.take("product", *pair[0].shape)).sum(-1, keepdim=True) for pair in products)
    found = sum(sums, start=products[0][0].new_zeros(())).neg_().div_(divisor(total, least))
    return found.mul_(total.sign()).masked_fill_(total.abs() < least, 0) if least else found


def chunked(*tensors: Float[Tensor, "_m _n _d"]) -> list[Tensor]:
    """Views in which each chunk of `CHUNK` rows is a batch of its own; fewer rows are one chunk."""
    chunk = min(CHUNK, tensors[0].shape[1])
    return [x.view(-1, chunk, x.shape[2]) for x in tensors]


def missing_rows(n: int) -> int:
    """How many rows are missing to whole chunks; what is added stands behind all queries, where no real one sees it."""
    return -n % CHUNK if n > CHUNK else 0


def running(
    work: Workspace,
    name: str,
    own: Float[Tensor, "c f e"],
    begin: Float[Tensor, "m f e"],
    order: Sequence[int],
    decay: Float[Tensor, "c 1 1"] | None = None,
) -> Float[Tensor, "c f e"]:
    """The sums that each chunk of each head comes after, in the given order of chunks; what each adds is its `own`.

    `begin` becomes what comes behind the last. A chunk takes `decay` of the sums before it along.
    """
    heads = len(begin), len(order)
    found = work.take(f"running {name}", *heads, *own.shape[1:])
    kept = begin.new_ones(*heads, 1, 1) if decay is None else decay.unflatten(0, heads)
    adds, keeps, before = (x.unbind(1) for x in (own.unflatten(0, heads), kept, found))
    for chunk in order:  # `cumsum` takes ten times as long
        before[chunk].copy_(begin)
        torch.addcmul(adds[chunk], begin, keeps[chunk], out=begin)
    return found.flatten(0, 1)

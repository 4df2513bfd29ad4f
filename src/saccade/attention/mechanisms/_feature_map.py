"""Attention by features: weights phi(q) . phi(k), each row divided by its sum, without ever making the weights.

What the kernel mechanisms share ("Transformers are RNNs", Katharopoulos et al. 2020): keys and values enter as sums
S = sum phi(k) v^T and z = sum phi(k). Causally the sums grow with the position; here in chunks: within a chunk pair
by pair, before it through the sums. Features are made in a workspace, forward and again backward, and never kept.

Cost: O(n f e) time, causally O(n f (e + chunk)); memory O(n e) and workspaces of a few MB. `f` features.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from saccade.attention.backends._tiles import Workspace, workspace
from saccade.shapes import Float, Tensor

CHUNK = 64
"""Positions computed pair by pair in the causal form: 64 and 128 are fastest (docs/log.md)."""

ROWS = 2048
"""Positions at a time, over all heads at hand: their features stay in cache."""


class FeatureMap(ABC):
    """phi and its derivative."""

    @abstractmethod
    def size(self, dim: int) -> int:
        """How many features a vector of `dim` numbers has."""

    @abstractmethod
    def features(self, work: Workspace, name: str, x: Float[Tensor, "m n d"]) -> Float[Tensor, "m n f"]:
        """phi(x), in the buffer `name` of the workspace."""

    @abstractmethod
    def slope(
        self, x: Float[Tensor, "m n d"], phi: Float[Tensor, "m n f"], grad: Float[Tensor, "m n f"]
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
    return Sums(*_SumsOf.apply(k.contiguous(), v.contiguous(), real, phi))


def asked(q: Float[Tensor, "m q d"], sums: Sums, phi: FeatureMap) -> Float[Tensor, "m q e"]:
    """What each query gets from the sums of its head; zeros where they are empty."""
    return _Asked.apply(q.contiguous(), *sums, phi)


def causal_by_features(
    q: Float[Tensor, "m n d"],
    k: Float[Tensor, "m n d"],
    v: Float[Tensor, "m n e"],
    real: Float[Tensor, "m n 1"] | None,
    earlier: Sums | None,
    phi: FeatureMap,
) -> Float[Tensor, "m n e"]:
    """What each query gets from the keys up to its own position, and from the sums over earlier ones if there are."""
    n = q.shape[1]
    if not n:
        return v
    fill = -n % CHUNK if n > CHUNK else 0  # what is added stands behind all queries, where no real one sees it
    if fill:
        q, k, v = (pad(x, (0, 0, 0, fill)) for x in (q, k, v))
        real = None if real is None else pad(real, (0, 0, 0, fill))
    if earlier is None:
        earlier = Sums(*(k.new_zeros(len(k), phi.size(k.shape[2]), dim) for dim in (v.shape[2], 1)))
    flat = (x.contiguous() for x in (q, k, v))
    return _Causal.apply(*flat, real, *earlier, phi)[:, :n]


def _room(like: Tensor) -> Workspace:
    """The thread's workspace; one of its own where the computation is only traced."""
    make = Workspace if torch.compiler.is_compiling() else workspace
    return make(like.dtype, like.device)


class _Cut(NamedTuple):
    """All rows of some heads, or some rows of one head: they lie together in memory."""

    heads: slice
    rows: slice

    def of(self, x: Float[Tensor, "m n d"]) -> Float[Tensor, "m2 n2 d"]:
        """Those rows."""
        return x[self.heads, self.rows]


def _cuts(heads: int, rows: int) -> Iterator[_Cut]:
    """All rows of all heads, in order, some thousands at a time."""
    if rows <= ROWS:
        step = max(1, ROWS // max(rows, 1))
        yield from (_Cut(slice(head, head + step), slice(0, rows)) for head in range(0, heads, step))
    else:
        for head in range(heads):
            yield from (_Cut(slice(head, head + 1), slice(row, row + ROWS)) for row in range(0, rows, ROWS))


def _keys(
    work: Workspace, k: Float[Tensor, "m n d"], real: Float[Tensor, "m n 1"] | None, cut: _Cut, phi: FeatureMap
) -> Float[Tensor, "m2 n2 f"]:
    """The features of some keys, zero for hidden ones."""
    return _masked(phi.features(work, "k", cut.of(k)), real, cut)


def _masked(x: Float[Tensor, "m2 n2 f"], real: Float[Tensor, "m n 1"] | None, cut: _Cut) -> Float[Tensor, "m2 n2 f"]:
    return x if real is None else x.mul_(cut.of(real))


class _SumsOf(torch.autograd.Function):
    """Keys and values into sums."""

    @staticmethod
    def forward(ctx: Any, k: Tensor, v: Tensor, real: Tensor | None, phi: FeatureMap) -> tuple[Tensor, Tensor]:
        work, features = _room(k), phi.size(k.shape[2])
        s, z = k.new_zeros(len(k), features, v.shape[2]), k.new_zeros(len(k), features, 1)
        for cut in _cuts(*k.shape[:2]):
            phi_k = _keys(work, k, real, cut, phi)
            s[cut.heads].baddbmm_(phi_k.mT, cut.of(v))
            z[cut.heads].add_(phi_k.sum(1)[..., None])
        ctx.save_for_backward(k, v, real)
        ctx.phi = phi
        return s, z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_s: Tensor, grad_z: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        k, v, real = ctx.saved_tensors
        work, grad_k, grad_v = _room(k), torch.empty_like(k), torch.empty_like(v)
        for cut in _cuts(*k.shape[:2]):
            phi_k = _keys(work, k, real, cut, ctx.phi)
            torch.bmm(phi_k, grad_s[cut.heads], out=cut.of(grad_v))
            back = torch.bmm(cut.of(v), grad_s[cut.heads].mT, out=work.take("back", *phi_k.shape))
            back = _masked(back.add_(grad_z[cut.heads].mT), real, cut)
            cut.of(grad_k).copy_(ctx.phi.slope(cut.of(k), phi_k, back))
        return grad_k, grad_v, None, None


class _Asked(torch.autograd.Function):
    """Queries against sums."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, s: Tensor, z: Tensor, phi: FeatureMap) -> Tensor:
        work, out, total = (
            _room(q),
            q.new_empty(*q.shape[:2], s.shape[2]),
            q.new_empty(*q.shape[:2], 1),
        )
        for cut in _cuts(*q.shape[:2]):
            phi_q = phi.features(work, "q", cut.of(q))
            weight = _never_zero(torch.bmm(phi_q, z[cut.heads], out=cut.of(total)))
            torch.bmm(phi_q, s[cut.heads], out=cut.of(out)).div_(weight)
        ctx.save_for_backward(q, s, z, total)
        ctx.phi = phi
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, s, z, total = ctx.saved_tensors
        work, grad = _room(q), grad.contiguous()
        grad_q, grad_s, grad_z = torch.empty_like(q), torch.zeros_like(s), torch.zeros_like(z)
        for cut in _cuts(*q.shape[:2]):
            phi_q = ctx.phi.features(work, "q", cut.of(q))
            to_sum = torch.div(cut.of(grad), cut.of(total), out=work.take("to_sum", *cut.of(grad).shape))
            back = torch.bmm(to_sum, s[cut.heads].mT, out=work.take("back", *phi_q.shape))
            to_weight = _to_weight(work, (phi_q, back)).div_(cut.of(total))
            grad_s[cut.heads].baddbmm_(phi_q.mT, to_sum)
            grad_z[cut.heads].baddbmm_(phi_q.mT, to_weight)
            back.baddbmm_(to_weight, z[cut.heads].mT)
            cut.of(grad_q).copy_(ctx.phi.slope(cut.of(q), phi_q, back))
        return grad_q, grad_s, grad_z, None


def _never_zero(weight: Float[Tensor, "m n 1"]) -> Float[Tensor, "m n 1"]:
    """1 in place of 0, so that what sees nothing gets zeros."""
    return weight.masked_fill_(weight == 0, 1)


def _to_weight(work: Workspace, *products: tuple[Tensor, Tensor]) -> Float[Tensor, "m n 1"]:
    """The gradient of the sum of weights, but for its division by that sum.

    It is the product of output and gradient with the sign turned, here from the factors that make up the output,
    because the output is not kept.
    """
    sums = (torch.mul(*pair, out=work.take("product", *pair[0].shape)).sum(-1, keepdim=True) for pair in products)
    return sum(sums, start=products[0][0].new_zeros(())).neg_()


class _Causal(torch.autograd.Function):
    """Sums carried from cut to cut; within a cut chunks, each with the sums before it and its own pairs."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None, s: Tensor, z: Tensor, phi: FeatureMap
    ) -> Tensor:
        work, out, total = _room(q), torch.empty_like(v), v.new_empty(*v.shape[:2], 1)
        carried, begun = (s.clone(), z.clone()), []
        for cut in _cuts(*q.shape[:2]):
            begun += [each[cut.heads].clone() for each in carried]
            phi_q, phi_k = phi.features(work, "q", cut.of(q)), _keys(work, k, real, cut, phi)
            phi_q, phi_k, v_c, out_c, total_c = _chunked(phi_q, phi_k, cut.of(v), cut.of(out), cut.of(total))
            s_c, z_c = _sums_before(work, phi_k, v_c, [each[cut.heads] for each in carried])
            pairs = torch.bmm(phi_q, phi_k.mT, out=work.take("pairs", *phi_q.shape[:2], phi_k.shape[1])).tril_()
            torch.sum(pairs, -1, keepdim=True, out=total_c)
            weight = _never_zero(total_c.baddbmm_(phi_q, z_c))
            torch.bmm(pairs, v_c, out=out_c).baddbmm_(phi_q, s_c).div_(weight)
        ctx.save_for_backward(q, k, v, real, total, *begun)
        ctx.phi = phi
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, real, total, *begun = ctx.saved_tensors
        work, phi, grad = _room(q), ctx.phi, grad.contiguous()
        grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
        features = phi.size(q.shape[2])
        back = v.new_zeros(len(v), features, v.shape[2]), v.new_zeros(len(v), features, 1)
        for number, cut in reversed(list(enumerate(_cuts(*q.shape[:2])))):
            phi_q, phi_k = phi.features(work, "q", cut.of(q)), _keys(work, k, real, cut, phi)
            to_sum = torch.div(cut.of(grad), cut.of(total), out=work.take("to_sum", *cut.of(grad).shape))
            phi_q, phi_k, v_c, grad_v_c, to_sum, total_c = _chunked(
                phi_q, phi_k, cut.of(v), cut.of(grad_v), to_sum, cut.of(total)
            )
            s_c, z_c = _sums_before(work, phi_k, v_c, [each.clone() for each in begun[2 * number : 2 * number + 2]])
            square = *phi_q.shape[:2], phi_q.shape[1]
            pairs = torch.bmm(phi_q, phi_k.mT, out=work.take("pairs", *square)).tril_()
            to_pairs = torch.bmm(to_sum, v_c.mT, out=work.take("to_pairs", *square))
            to_q = torch.bmm(to_sum, s_c.mT, out=work.take("to_q", *phi_q.shape))
            to_weight = _to_weight(work, (pairs, to_pairs), (phi_q, to_q)).div_(total_c)
            s_b, z_b = _sums_behind(work, phi_q, to_sum, to_weight, [each[cut.heads] for each in back])
            torch.bmm(pairs.mT, to_sum, out=grad_v_c).baddbmm_(phi_k, s_b)
            to_pairs.add_(to_weight).tril_()
            to_q.baddbmm_(to_pairs, phi_k).baddbmm_(to_weight, z_c.mT)
            to_k = torch.bmm(to_pairs.mT, phi_q, out=work.take("to_k", *phi_k.shape))
            to_k.baddbmm_(v_c, s_b.mT).add_(z_b.mT)
            rows = *cut.of(q).shape[:2], features
            cut.of(grad_q).copy_(phi.slope(cut.of(q), phi_q.view(rows), to_q.view(rows)))
            cut.of(grad_k).copy_(phi.slope(cut.of(k), phi_k.view(rows), _masked(to_k.view(rows), real, cut)))
        return grad_q, grad_k, grad_v, None, *back, None


def _chunked(*tensors: Float[Tensor, "_m _n _d"]) -> list[Tensor]:
    """Views in which each chunk is a batch of its own."""
    chunk = min(CHUNK, tensors[0].shape[1])
    return [x.view(-1, chunk, x.shape[2]) for x in tensors]


def _sums_before(
    work: Workspace, phi_k: Float[Tensor, "c n f"], v: Float[Tensor, "c n e"], carried: list[Tensor]
) -> list[Tensor]:
    """For each chunk the sums over all before it. `carried` goes on from before the first to behind the last."""
    s = torch.bmm(phi_k.mT, v, out=work.take("s", len(v), phi_k.shape[2], v.shape[2]))
    return [
        _running(work, name, own, begin)
        for name, own, begin in zip("sz", (s, phi_k.sum(1)[..., None]), carried, strict=True)
    ]


def _sums_behind(
    work: Workspace,
    phi_q: Float[Tensor, "c n f"],
    to_sum: Float[Tensor, "c n e"],
    to_weight: Float[Tensor, "c n 1"],
    carried: list[Tensor],
) -> list[Tensor]:
    """For each chunk the gradients of the sums from all chunks behind it; `carried` goes on to before the first."""
    s = torch.bmm(phi_q.mT, to_sum, out=work.take("s", len(phi_q), phi_q.shape[2], to_sum.shape[2]))
    z = torch.bmm(phi_q.mT, to_weight, out=work.take("z", len(phi_q), phi_q.shape[2], 1))
    found = []
    for name, own, begin in zip(("s behind", "z behind"), (s, z), carried, strict=True):
        turned = own.unflatten(0, (len(begin), -1)).flip(1).flatten(0, 1)
        running = _running(work, name, turned, begin)
        found.append(running.unflatten(0, (len(begin), -1)).flip(1).flatten(0, 1))
    return found


def _running(
    work: Workspace, name: str, own: Float[Tensor, "c f e"], begin: Float[Tensor, "m f e"]
) -> Float[Tensor, "c f e"]:
    """What comes before each chunk of each head. `begin` becomes the sum of everything."""
    heads, chunks = len(begin), len(own) // len(begin)
    running = work.take(f"running {name}", heads, chunks + 1, *own.shape[1:])
    running[:, 0].copy_(begin)
    for chunk, added in enumerate(own.unflatten(0, (heads, chunks)).unbind(1)):  # `cumsum` takes ten times as long
        running[:, chunk + 1].copy_(running[:, chunk]).add_(added)
    begin.copy_(running[:, -1])
    return running[:, :-1].flatten(0, 1)

"""Softmax attention over blocks that a soft permutation has mixed, and over the block of the query itself.

Block i of the sorted keys is sum_j order[i, j] block_j, position by position, and so for values. A query sees sorted
block i and its own block i in one softmax; under SortCut it sees all sorted blocks that there are, and no other.
Where tokens are hidden, a position of a sorted block is the mean over the real tokens mixed there, and the logarithm
of their total share, its mass, is added to the scores: full mass is the plain sum, and no mass is not seen at all.

Cost: O(n^2 / block (d + e)) for the sorting and O(n block (d + e)) for the softmax, forward and backward. Keys and
values of one head (or of some short ones) are sorted in a workspace and used while they are in cache; they are sorted
again in the backward pass, and the weights are rebuilt from the log-sum-exp.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from saccade.attention import opaque
from saccade.attention.backends._tiles import Softmax, Workspace, workspace
from saccade.shapes import Float, Tensor

ROWS = 4096
"""Queries at a time: their scores against two blocks of 128 take 4 MB."""

GPU_ROWS = 2**18
"""The same where there is no cache to stay in."""


def attend_sorted(
    q: Float[Tensor, "m j t d"],
    k: Float[Tensor, "m j t d"],
    v: Float[Tensor, "m j t e"],
    order: Float[Tensor, "m s j"],
    mass: Float[Tensor, "m s t"] | None,
    real: Float[Tensor, "m j t"] | None,
    causal: bool = False,
    cut: bool = False,
) -> Float[Tensor, "m j t e"]:
    """What each query gets from the sorted block in its place and from its own block.

    Args:
        q: queries of all heads, in blocks.
        k: keys, zero where hidden.
        v: values, zero where hidden.
        order: the share of each block j in each sorted block s.
        mass: the share of real tokens at each sorted position; 1 if not given.
        real: 1 for real keys and 0 for hidden ones; given if `mass` is.
        causal: whether a query sees its own block only up to itself.
        cut: SortCut: a query sees all sorted blocks, and not its own.
    """
    flat, scale = (x.contiguous() for x in (q, k, v, order)), 1 / math.sqrt(q.shape[3])
    if torch.compiler.is_compiling():
        return opaque.run(_named(scale, causal, cut), *flat, mass, real)[0]
    return _Sorted.apply(*flat, mass, real, _Plan(scale, causal, cut))


@dataclass(frozen=True)
class _Plan:
    """What queries see: two blocks in one place, the sorted one and the own one; or the sorted ones alone."""

    scale: float
    causal: bool
    cut: bool

    @property
    def parts(self) -> int:
        """Blocks in one place."""
        return 1 if self.cut else 2

    def rows(self, x: Float[Tensor, "g j t d"]) -> Float[Tensor, "m q d"]:
        """Queries and what belongs to them as tiles: one a block, or one a head where all see the same keys."""
        return x.flatten(1, 2) if self.cut else x.flatten(0, 1)

    def columns(self, x: Float[Tensor, "g s p t d"]) -> Float[Tensor, "m k d"]:
        """The keys of such tiles."""
        return x.flatten(1, 3) if self.cut else x.flatten(0, 1).flatten(1, 2)


class _Piece(NamedTuple):
    """All rows of some tiles, or some rows of one: they lie together in memory."""

    tiles: slice
    rows: slice

    def of(self, x: Float[Tensor, "m q d"]) -> Float[Tensor, "m2 q2 d"]:
        """Those rows."""
        return x[self.tiles, self.rows]


class _Heads(NamedTuple):
    """Some heads as tiles, their blocks sorted."""

    q: Float[Tensor, "m q d"]
    k: Float[Tensor, "m k d"]
    v: Float[Tensor, "m k e"]
    bias: Float[Tensor, "m 1 k"] | None


def _some(heads: int, rows: int, limit: int) -> Iterator[slice]:
    """Several short heads at a time, or one long one."""
    step = max(1, limit // rows)
    return (slice(head, min(heads, head + step)) for head in range(0, heads, step))


def _pieces(x: Float[Tensor, "m q d"], limit: int) -> Iterator[_Piece]:
    """All rows of all tiles, some thousands at a time."""
    tiles, rows = x.shape[:2]
    for at in _some(tiles, rows, limit):
        yield from (_Piece(at, slice(row, min(rows, row + limit))) for row in range(0, rows, limit))


def _least(mass: Tensor) -> float:
    """Less mass than this counts as none: its reciprocal, in a gradient, could pass the largest number."""
    return math.sqrt(torch.finfo(mass.dtype).tiny)


def _never_zero(mass: Float[Tensor, "g s t"]) -> Float[Tensor, "g s t 1"]:
    return mass.clamp(min=_least(mass))[..., None]


def _bias(mass: Tensor | None, real: Tensor | None, plan: _Plan) -> Float[Tensor, "m 1 k"] | None:
    """What is added to the scores of a key: the logarithm (base 2) of its mass, -inf where nothing is real."""
    if mass is None or real is None:
        return None
    bias = mass.log2().masked_fill_(mass < _least(mass), -math.inf)[:, :, None]
    bias = bias if plan.cut else torch.cat([bias, real.log2()[:, :, None]], 2)
    return plan.columns(bias[..., None]).mT


class _Call:
    """The tensors of one call, with a workspace."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, order: Tensor, mass: Tensor | None, real: Tensor | None, plan: _Plan
    ) -> None:
        self.q, self.k, self.v, self.order, self.mass, self.real, self.plan = q, k, v, order, mass, real, plan
        make = Workspace if torch.compiler.is_compiling() else workspace
        self.work, self.softmax = make(q.dtype, q.device), Softmax(plan.scale, 0.0, 0)
        self.limit = ROWS if q.device.type == "cpu" else GPU_ROWS
        later = torch.full((q.shape[2],) * 2, -math.inf, dtype=q.dtype, device=q.device).triu_(1)
        self.later = later if plan.causal else None

    def groups(self) -> Iterator[slice]:
        """Heads that are sorted together."""
        return _some(len(self.q), self.q.shape[1] * self.q.shape[2], self.limit)

    def heads(self, at: slice) -> _Heads:
        """Some heads, sorted."""
        mass, real = (None if x is None else x[at] for x in (self.mass, self.real))
        k, v = (self._sorted(name, x[at], self.order[at], mass) for name, x in (("keys", self.k), ("values", self.v)))
        return _Heads(self.plan.rows(self.q[at]), k, v, _bias(mass, real, self.plan))

    def _sorted(self, name: str, x: Tensor, order: Tensor, mass: Tensor | None) -> Float[Tensor, "m k d"]:
        """Sorted blocks, each with the own block of its place behind it."""
        places = *order.shape[:2], self.plan.parts
        both = self.work.take(name, *places, *x.shape[2:])
        torch.bmm(order, x.flatten(2), out=both.view(*places, -1)[:, :, 0])
        if mass is not None:
            both[:, :, 0].div_(_never_zero(mass))
        if not self.plan.cut:
            both[:, :, 1].copy_(x)
        return self.plan.columns(both)

    def scores(self, heads: _Heads, at: _Piece) -> Float[Tensor, "m q k"]:
        """Scores of some queries, in units of log 2."""
        q = at.of(heads.q)
        bias = None if heads.bias is None else heads.bias[at.tiles].expand(-1, q.shape[1], -1)
        scores = self.softmax.scores(self.work, q, heads.k[at.tiles], bias, None)
        if self.later is not None:
            scores[:, :, -len(self.later) :].add_(self.later[at.rows])
        return scores

    def forward(self) -> tuple[Float[Tensor, "m j t e"], Float[Tensor, "m j t 1"]]:
        """The output and its log-sum-exp (base 2)."""
        out, lse = torch.empty_like(self.v), self.q.new_empty(*self.q.shape[:3], 1)
        for some in self.groups():
            heads, out_t, lse_t = self.heads(some), self.plan.rows(out[some]), self.plan.rows(lse[some])
            for at in _pieces(heads.q, self.limit):
                found = self.softmax.forward(self.work, self.scores(heads, at), heads.v[at.tiles], 0, at.of(out_t))
                at.of(lse_t).copy_(found)
        return out, lse

    def backward(self, grad: Tensor, lse: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of queries, keys, values, order and mass."""
        to_q, to_k, to_v, to_order = (torch.empty_like(x) for x in (self.q, self.k, self.v, self.order))
        to_mass = None if self.mass is None else torch.empty_like(self.mass)
        for some in self.groups():
            heads, rows = self.heads(some), [self.plan.rows(x[some]) for x in (grad, lse, to_q)]
            back_k, back_v, back_bias = self.through_softmax(heads, *rows)
            if to_mass is not None and self.mass is not None:
                to_mass[some] = self.through_mass(some, back_bias, ((back_k, heads.k), (back_v, heads.v)))
            self.through_sorting(some, back_k, self.k, to_k, to_order, False)
            self.through_sorting(some, back_v, self.v, to_v, to_order, True)
        return to_q, to_k, to_v, to_order, to_mass

    def through_softmax(self, heads: _Heads, grad: Tensor, lse: Tensor, to_q: Tensor) -> tuple[Tensor, ...]:
        """Fills the gradients of some heads' queries; gives those of their keys, values and bias in the workspace."""
        take, scale = self.work.take, self.plan.scale
        to_k, to_v = take("to_keys", *heads.k.shape), take("to_values", *heads.v.shape)
        to_bias = take("to_bias", *heads.k.shape[:2]).zero_()
        for at in _pieces(heads.q, self.limit):
            tiles, q, given, more = at.tiles, at.of(heads.q), at.of(grad), int(at.rows.start > 0)
            weights, to_scores = self.softmax.backward(
                self.work, self.scores(heads, at), at.of(lse), heads.v[tiles], given, None, 0
            )
            torch.baddbmm(to_v[tiles], weights.mT, given, beta=more, out=to_v[tiles])
            torch.baddbmm(to_k[tiles], to_scores.mT, q, beta=more, alpha=scale, out=to_k[tiles])
            torch.baddbmm(at.of(to_q), to_scores, heads.k[tiles], beta=0, alpha=scale, out=at.of(to_q))
            if heads.bias is not None:
                to_bias[tiles] += to_scores.sum(1)
        return to_k, to_v, to_bias

    def through_mass(self, some: slice, to_bias: Tensor, pairs: tuple[tuple[Tensor, Tensor], ...]) -> Tensor:
        """The gradient of the mass; that of keys and values becomes that of the sums before they were divided by it."""
        assert self.mass is not None
        mass = self.mass[some]
        found = to_bias.view(*mass.shape[:2], self.plan.parts, -1)[:, :, 0].clone()
        for back, x in pairs:
            back, x = (each.view(*mass.shape[:2], self.plan.parts, mass.shape[2], -1)[:, :, 0] for each in (back, x))
            found.sub_(torch.mul(back, x, out=self.work.take("product", *x.shape)).sum(-1))
            back.div_(_never_zero(mass))
        return found.div_(_never_zero(mass)[..., 0])

    def through_sorting(self, some: slice, back: Tensor, x: Tensor, to_x: Tensor, to_order: Tensor, more: bool) -> None:
        """Fills the gradients of some heads' keys or values, and fills or adds to those of their order."""
        order, x, to_x, to_order = (each[some] for each in (self.order, x, to_x, to_order))
        both = back.view(*order.shape[:2], self.plan.parts, -1)
        torch.bmm(order.mT, both[:, :, 0], out=to_x.flatten(2))
        if not self.plan.cut:
            to_x.flatten(2).add_(both[:, :, 1])
        torch.baddbmm(to_order, both[:, :, 0], x.flatten(2).mT, beta=int(more), out=to_order)


class _Sorted(torch.autograd.Function):
    """Head after head: sort, then the softmax of some thousand queries at a time."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, order: Tensor, mass: Tensor | None, real: Tensor | None, plan: _Plan
    ) -> Tensor:
        out, lse = _Call(q, k, v, order, mass, real, plan).forward()
        ctx.save_for_backward(q, k, v, order, mass, real, lse)
        ctx.plan = plan
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, order, mass, real, lse = ctx.saved_tensors
        return *_Call(q, k, v, order, mass, real, ctx.plan).backward(grad.contiguous(), lse), None, None


@dataclass(frozen=True)
class _Opaque(opaque.Opaque):
    """`_Sorted` for `torch.compile`, which knows no products that are written into a part of a tensor."""

    plan: _Plan

    def forward(self, ctx: Any, *tensors: Any) -> tuple[Tensor, ...]:
        inputs: Any = (*tensors, self.plan)
        return (_Sorted.forward(ctx, *inputs),)

    def backward(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Sorted.backward(ctx, grad)[:5]

    def empty(self, *tensors: Any) -> tuple[Tensor, ...]:
        q, _, v = tensors[:3]
        return (q.new_empty(*q.shape[:3], v.shape[3]),)


@opaque.constant
def _named(scale: float, causal: bool, cut: bool) -> str:
    return opaque.name_of(_Opaque(_Plan(scale, causal, cut)))

"""Routing's softmax in one autograd function: normalise, choose, gather, softmax, add up, some heads at a time.

A CPU is fast where data stays in its cache: all that is between the inputs and the output lies in workspaces that
are used again for the next heads. Rows are gathered and added up by number; the backward pass normalises and
gathers again. Kept for it are the inputs, who was in which cluster, and a log-sum-exp for each query.

Cost: O(n clusters d) to choose, then O(d) for each pair; memory: output and gradients, and workspaces of some heads.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from saccade.attention.backends._tiles import LOG2E, Softmax, Workspace, workspace
from saccade.attention.mechanisms._routing.clusters import Earlier, Members, Piece, chosen, nearest
from saccade.attention.mechanisms._routing.normalised import Unit, filled, norm_backward, normalise
from saccade.attention.states import state_dtype
from saccade.shapes import Bool, Float, Int, Tensor

ROWS = 2**19
"""Numbers of one input that are worked on at a time: about 2 MB, at least one head."""

GRID, FINEST = 64, 2.0**-36
"""Products are rounded to so many roundings of a number of their size before tokens are chosen, and never finer: equal
tokens get products that differ by their place in a matrix product, and must not be told apart by that."""


@dataclass(frozen=True)
class Routes:
    """How a call routes.

    Attributes:
        clusters: how many centroids there are.
        causal: each token in its nearest cluster, and keys before queries; otherwise the nearest tokens of each.
        window: causally, keys that a query sees at most, itself among them.
        widths: otherwise, tokens of each cluster, for each example.
        raw: whether scores are made of queries and keys as they are, not of normalised ones.
        noted: whether the sums of the tokens by nearest centroid are wanted.
    """

    clusters: int
    causal: bool
    window: int | None
    widths: tuple[int, ...]
    raw: bool
    noted: bool


class Routed(NamedTuple):
    """What comes out.

    Attributes:
        out: the output.
        sums: sum of the normalised queries and keys that are nearest to each centroid; `None` if not wanted.
        counts: how many those are.
    """

    out: Float[Tensor, "m n e"]
    sums: Float[Tensor, "m c d"] | None
    counts: Float[Tensor, "m c"] | None


def routed(
    q: Float[Tensor, "m n d"],
    k: Float[Tensor, "m n d"] | None,
    v: Float[Tensor, "m n e"],
    centroids: Float[Tensor, "h c d"],
    real: Bool[Tensor, "b n"] | None,
    routes: Routes,
) -> Routed:
    """Softmax within clusters.

    Args:
        q: queries, the heads of all examples one after the other; zero where hidden.
        k: keys; those of the queries if not given.
        v: values; zero where hidden.
        centroids: of each head.
        real: True for real tokens.
        routes: what to do.
    """
    k = None if k is None else k.contiguous()
    return Routed(
        *InClusters.apply(q.contiguous(), k, v.contiguous(), centroids.to(state_dtype(q.dtype)), real, routes)
    )


class InClusters(torch.autograd.Function):
    """The same heads and pieces forward and backward. Weights are rebuilt from the log-sum-exp."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor | None, v: Tensor, centroids: Tensor, real: Tensor | None, routes: Routes
    ) -> tuple[Tensor | None, ...]:
        call = _Call(q, k, v, real, routes, workspace(centroids.dtype, q.device))
        out, kept, notes = torch.empty_like(v), call.room(), None
        if routes.noted:
            sums = centroids.new_zeros(len(q), routes.clusters + 1, q.shape[2])
            notes = sums, sums.new_zeros(sums.shape[:2])
        for heads in call.chunks():
            units = call.units(heads)
            labels = call.place(heads, units, centroids, kept)
            if notes is not None:
                _note(units, labels, *(each[heads] for each in notes))
            call.forward(heads, units, kept, out)
        ctx.save_for_backward(q, k, v, real, out if routes.causal else None, *kept)
        ctx.routes = routes
        if notes is None:
            return out, None, None
        known = tuple(each[:, :-1] for each in notes)
        ctx.mark_non_differentiable(*known)
        return out, *known

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, real, out, *kept = ctx.saved_tensors
        call = _Call(q, k, v, real, ctx.routes, workspace(state_dtype(q.dtype), q.device))
        grads = [None if x is None else torch.empty_like(x) for x in (q, k, v)]
        for heads in call.chunks():
            call.backward(heads, _Kept(*kept), grad, out, grads)
        return *grads, None, None, None


class _Kept(NamedTuple):
    """What is kept of a call for its backward pass, besides inputs.

    Attributes:
        queries: the queries of each cluster; causally, the cluster of each query.
        keys: the same of keys.
        lse: the log-sum-exp (base 2) of each place in a cluster; causally, of each query.
    """

    queries: Int[Tensor, "m ..."]
    keys: Int[Tensor, "m ..."]
    lse: Float[Tensor, "m s"]


class _Rows(NamedTuple):
    """Some heads one after the other; behind the queries a row of zeros, nobody."""

    q: Float[Tensor, "rows d"]
    k: Float[Tensor, "rows2 d"]
    v: Float[Tensor, "rows3 e"]


@dataclass(frozen=True)
class _Call:
    """The inputs of one call and the workspace it computes in."""

    q: Tensor
    k: Tensor | None
    v: Tensor
    real: Tensor | None
    routes: Routes
    work: Workspace

    @property
    def softmax(self) -> Softmax:
        """With the usual scale."""
        return Softmax(1 / math.sqrt(self.q.shape[2]), 0.0, 0)

    def room(self) -> _Kept:
        """Room for what is kept."""
        m, n, _ = self.q.shape
        shape = (m, n) if self.routes.causal else (m, self.routes.clusters, max(self.routes.widths, default=0))
        queries = torch.empty(shape, dtype=torch.int32, device=self.q.device)
        keys = queries if self.k is None else torch.empty_like(queries)
        lse = torch.empty(m, math.prod(shape[1:]), dtype=self.work.dtype, device=self.q.device)
        return _Kept(queries, keys, lse)

    def chunks(self) -> Iterator[slice]:
        """Some heads at a time."""
        m, n, d = self.q.shape
        step = max(1, ROWS // max(1, n * max(d, self.v.shape[2])))
        yield from (slice(begin, min(begin + step, m)) for begin in range(0, m if n else 0, step))

    def units(self, heads: slice) -> list[Unit]:
        """Layer norm without scale and bias: of the queries, and of the keys if they are others."""
        given = (("q rows", self.q), ("k rows", self.k))
        return [normalise(self.work, name, x[heads]) for name, x in given if x is not None]

    def place(
        self, heads: slice, units: list[Unit], centroids: Float[Tensor, "h c d"], kept: _Kept
    ) -> list[Int[Tensor, "m n"]]:
        """Fill in who is in which cluster; the nearest centroid of each token, if it is known."""
        h, device = len(centroids), self.q.device
        number = torch.arange(heads.start, heads.stop, device=device)
        mu, real = centroids[number % h], None if self.real is None else self.real[number // h]
        labels = []
        for (_, x, _), listed in zip(units, (kept.queries, kept.keys), strict=False):
            if self.routes.causal:
                products = torch.bmm(x, mu.mT, out=self.work.take("products", *x.shape[:2], mu.shape[1]))
                labels.append(nearest(products, real))
                listed[heads] = labels[-1]
                continue
            products = torch.bmm(mu, x.mT, out=self.work.take("products", *mu.shape[:2], x.shape[1]))
            if self.routes.noted:
                labels.append(nearest(products.mT.contiguous(), real))
            grid = max(GRID * torch.finfo(products.dtype).eps, FINEST) * x.shape[2]
            products.mul_(1 / grid).round_()
            widths = torch.tensor(self.routes.widths, device=device)[number // h]
            listed[heads] = chosen(products, widths, listed.shape[2], real)
        return labels

    def meeting(self, heads: slice, kept: _Kept) -> Members | Earlier:
        """Who meets whom."""
        queries = kept.queries[heads].long()
        keys = queries if self.k is None else kept.keys[heads].long()
        if self.routes.causal:
            return Earlier.of(queries, keys, self.routes.clusters, self.routes.window)
        return Members(queries, keys, self.q.shape[1])

    def rows(self, heads: slice, units: list[Unit]) -> _Rows:
        """What scores are made of, and values."""
        if self.routes.raw:
            q = filled(self.work, "raw q", self.q[heads])
            k = q if self.k is None else self.k[heads].to(self.work.dtype).flatten(0, 1)
        else:
            q, k = units[0].rows, units[-1].rows
        return _Rows(q, k, self.v[heads].to(self.work.dtype).flatten(0, 1))

    def fetch(self, name: str, rows: Float[Tensor, "rows d"], index: Int[Tensor, "m q"]) -> Float[Tensor, "m q d"]:
        """The rows of those numbers."""
        out = self.work.take(name, index.numel(), rows.shape[1])
        return torch.index_select(rows, 0, index.flatten(), out=out).view(*index.shape, -1)

    def scores(self, piece: Piece, rows: _Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, and scores in units of log 2."""
        q, k = self.fetch("q", rows.q, piece.queries), self.fetch("k", rows.k, piece.keys)
        scores = self.softmax.scores(self.work, q, k, None, None)
        return q, k, scores if piece.hidden is None else scores.masked_fill_(piece.hidden, -math.inf)

    def forward(self, heads: slice, units: list[Unit], kept: _Kept, out: Float[Tensor, "m n e"]) -> None:
        """Fill in the output of some heads."""
        rows, meeting = self.rows(heads, units), self.meeting(heads, kept)
        total = self.work.take("sum", len(rows.q), rows.v.shape[1]).zero_()
        lse = self.work.take("lse", kept.lse[heads].numel() + 1, 1).fill_(-math.inf)
        for piece in meeting.pieces():
            scores, v = self.scores(piece, rows)[2], self.fetch("v", rows.v, piece.keys)
            result = self.work.take("result", *piece.queries.shape, v.shape[2])
            found = self.softmax.forward(self.work, scores, v, 0, result)
            lse.index_copy_(0, piece.places.flatten(), found.flatten(0, 1))
            total.index_add_(0, piece.queries.flatten(), result.flatten(0, 1))
        total, lse = total[:-1], lse[:-1]
        if isinstance(meeting, Members):
            total.div_(meeting.counts()[:-1, None])
        else:
            _with_itself(total, lse, rows, self.softmax.scale)
        kept.lse[heads] = lse.view_as(kept.lse[heads])
        out[heads] = total.view_as(out[heads])

    def backward(self, heads: slice, kept: _Kept, grad: Tensor, out: Tensor | None, grads: list[Tensor | None]) -> None:
        """Fill in the gradients of some heads."""
        units = self.units(heads)
        rows, meeting = self.rows(heads, units), self.meeting(heads, kept)
        given, lse = filled(self.work, "given", grad[heads]), filled(self.work, "lse", kept.lse[heads].view(1, -1, 1))
        inner = None
        if isinstance(meeting, Members):
            given.div_(meeting.counts()[:, None])
        elif out is not None:
            inner = filled(self.work, "inner", (given[:-1] * out[heads].flatten(0, 1)).sum(1).view(1, -1, 1))
        to_q, to_k, to_v = (self.work.take(f"to {name}", *x.shape).zero_() for name, x in zip("qkv", rows, strict=True))
        to = _Rows(to_q, to_q if self.k is None else to_k, to_v)
        for piece in meeting.pieces():
            self.backward_piece(piece, rows, given, lse, inner, to)
        if inner is not None:
            _back_to_itself(rows, given, lse, inner, to, self.softmax.scale)
        for found, result, unit in zip(to, grads, (units[0], units[-1], None), strict=True):
            if result is not None:
                found = found[: result[heads].numel() // result.shape[2]].view_as(result[heads])
                result[heads] = found if self.routes.raw or unit is None else norm_backward(found, unit)

    def backward_piece(
        self, piece: Piece, rows: _Rows, given: Tensor, lse: Tensor, inner: Tensor | None, to: _Rows
    ) -> None:
        """Add what arrives through one piece."""
        q, k, scores = self.scores(piece, rows)
        v, grad = self.fetch("v", rows.v, piece.keys), self.fetch("grad", given, piece.queries)
        weights, to_scores = self.softmax.backward(
            self.work,
            scores,
            self.fetch("lse here", lse, piece.places),
            v,
            grad,
            None if inner is None else self.fetch("inner here", inner, piece.queries),
            0,
        )
        scale = self.softmax.scale
        self.add(to.v, piece.keys, weights.mT, grad, 1.0)
        self.add(to.k, piece.keys, to_scores.mT, q, scale)
        self.add(to.q, piece.queries, to_scores, k, scale)

    def add(self, to: Tensor, index: Tensor, left: Tensor, right: Tensor, scale: float) -> None:
        """Add a product to the rows of those numbers."""
        out = self.work.take("product", len(left), left.shape[1], right.shape[2])
        torch.baddbmm(out, left, right, beta=0, alpha=scale, out=out)
        to.index_add_(0, index.flatten(), out.flatten(0, 1))


def _note(
    units: list[Unit], labels: list[Int[Tensor, "m n"]], sums: Float[Tensor, "m c1 d"], counts: Float[Tensor, "m c1"]
) -> None:
    """Add up the tokens of each centroid, and those of none behind the last."""
    m, c, d = sums.shape
    for unit, label in zip(units, labels, strict=True):
        index = (label + torch.arange(m, device=label.device)[:, None] * c).flatten()
        sums.view(-1, d).index_add_(0, index, unit.x.flatten(0, 1))
        counts.add_(torch.bincount(index, minlength=m * c).view(m, c))


def _with_itself(out: Tensor, lse: Tensor, rows: _Rows, scale: float) -> None:
    """Let each query see its own key as well: changes output and log-sum-exp."""
    own = _own(rows, scale)
    out.lerp_(rows.v, torch.sigmoid((own - lse) / LOG2E))
    torch.logaddexp2(lse, own, out=lse)


def _back_to_itself(rows: _Rows, given: Tensor, lse: Tensor, inner: Tensor, to: _Rows, scale: float) -> None:
    """Add the gradients that arrive through each query's own key."""
    n = len(rows.v)
    weight = (_own(rows, scale) - lse[:n]).exp2_()
    to_score = ((given[:n] * rows.v).sum(1, keepdim=True) - inner[:n]).mul_(weight).mul_(scale)
    to.v.addcmul_(weight, given[:n])
    to.q[:n].addcmul_(to_score, rows.k[:n])
    to.k[:n].addcmul_(to_score, rows.q[:n])


def _own(rows: _Rows, scale: float) -> Float[Tensor, "n 1"]:
    """The score of each query with its own key, in units of log 2."""
    n = len(rows.v)
    return (rows.q[:n] * rows.k[:n]).sum(1, keepdim=True).mul_(scale * LOG2E)

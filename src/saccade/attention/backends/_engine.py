"""Softmax attention that visits the tiles of a layout and no others, forward and backward.

The layout is cut into pieces of work (`_pieces.py`), each a rectangular softmax in a workspace (`_tiles.py`). Parts
of a layout that lie in orders of their own are computed one after the other and merged by their log-sum-exp.

Cost: time follows the visited pairs, in both directions; memory is the output (and the three gradients), a copy of
inputs that are not whole tiles or lie in another order, and workspaces of a few MB whatever the length.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from saccade.attention.backends._flat import Flat
from saccade.attention.backends._pieces import Piece, pieces
from saccade.attention.backends._tiles import Softmax, Workspace, workspace
from saccade.attention.layout import Layout, Part
from saccade.shapes import Bool, Float, Tensor

Parted = tuple[Float[Tensor, "b h q e"], Float[Tensor, "b h q 1"]]
"""An output, and its log-sum-exp (base 2): zeros and -inf where nothing is seen."""


def visit(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    layout: Layout,
    *,
    key_mask: Bool[Tensor, "b k"] | None,
    scale: float,
    dropout: float,
) -> Float[Tensor, "b h q e"]:
    """Softmax attention over the pairs of a layout."""
    seed = int(torch.randint(2**62, ())) if dropout else 0
    return _Visit.apply(q, k, v, key_mask, layout, Softmax(scale, dropout, seed))


class _Visit(torch.autograd.Function):
    """The same pieces in the same order, forward and backward. Weights are rebuilt from the log-sum-exp."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, layout: Layout, softmax: Softmax
    ) -> Tensor:
        out, lse = forward(q, k, v, key_mask, layout, softmax)
        ctx.save_for_backward(q, k, v, key_mask, out if len(layout.parts) > 1 else None, lse)
        ctx.plan = layout, softmax
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, key_mask, out, lse = ctx.saved_tensors
        return *backward(grad, q, k, v, key_mask, out, lse, *ctx.plan), None, None, None


def forward(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    key_mask: Bool[Tensor, "b k"] | None,
    layout: Layout,
    softmax: Softmax,
) -> Parted:
    """The output, in the dtype of the queries, and its log-sum-exp."""
    call = _Call.of(q, k, v, key_mask, softmax)
    first, *others = layout.parts
    out, lse = call.forward(first, 0, q.dtype if not others else call.work.dtype)
    for number, part in enumerate(others, start=1):
        out, lse = _merged((out, lse), call.forward(part, number, call.work.dtype))
    return out.to(q.dtype), lse


def backward(
    grad: Float[Tensor, "b h q e"],
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    key_mask: Bool[Tensor, "b k"] | None,
    out: Float[Tensor, "b h q e"] | None,
    lse: Float[Tensor, "b h q 1"],
    layout: Layout,
    softmax: Softmax,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values. The output is needed only where there are several parts."""
    call = _Call.of(q, k, v, key_mask, softmax)
    first, *others = layout.parts
    inner = (grad * out).sum(-1, keepdim=True, dtype=call.work.dtype) if out is not None and others else None
    total = call.backward(first, 0, grad, lse, inner)
    for number, part in enumerate(others, start=1):
        for mine, more in zip(total, call.backward(part, number, grad, lse, inner), strict=True):
            mine.add_(more)
    grad_q, grad_k, grad_v = (each.to(q.dtype) for each in total)
    return grad_q, grad_k, grad_v


@dataclass(frozen=True)
class _Call:
    """The inputs of one call and the workspace it computes in."""

    q: Tensor
    k: Tensor
    v: Tensor
    key_mask: Tensor | None
    softmax: Softmax
    work: Workspace

    @classmethod
    def of(cls, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, softmax: Softmax) -> "_Call":
        """With a workspace, which accumulates in fp32 or better."""
        return cls(q, k, v, key_mask, softmax, workspace(torch.promote_types(q.dtype, torch.float32), q.device))

    def forward(self, part: Part, number: int, dtype: torch.dtype) -> Parted:
        """What one part alone would give."""
        flat, work, softmax = Flat.of(part, self.q, self.k), self.work, self.softmax
        q, k, v = flat.queries(self.q), flat.keys(self.k), flat.keys(self.v)
        out = flat.per_query(v.shape[2], 0.0, dtype, q.device)
        lse = flat.per_query(1, -torch.inf, work.dtype, q.device)
        for seed, piece in self.pieces(flat, number):
            scores = softmax.scores(
                work, piece.fetch_queries(work, "q", q), piece.fetch_keys(work, "k", k), piece.bias, piece.hidden
            )
            result = piece.room(work, "out", out)
            piece.put_queries(lse, softmax.forward(work, scores, piece.fetch_keys(work, "v", v), seed, result))
            piece.put_queries(out, result)
        return flat.from_queries(out), flat.from_queries(lse)

    def backward(
        self, part: Part, number: int, grad: Tensor, lse: Tensor, inner: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients that arrive through one part, given the log-sum-exp of all.

        `inner` is the product of output and gradient for each query, needed where a part does not hold whole rows.
        """
        flat, work, softmax = Flat.of(part, self.q, self.k), self.work, self.softmax
        q, k, v = flat.queries(self.q), flat.keys(self.k), flat.keys(self.v)
        grad, lse = flat.queries(grad), flat.queries(lse)
        inner = None if inner is None else flat.queries(inner)
        grad_q = flat.per_query(q.shape[2], 0.0, work.dtype, q.device)
        grad_k, grad_v = (torch.zeros_like(x, dtype=work.dtype) for x in (k, v))
        for seed, piece in self.pieces(flat, number):
            tiles = piece.fetch_queries(work, "q", q), piece.fetch_keys(work, "k", k)
            scores = softmax.scores(work, *tiles, piece.bias, piece.hidden)
            given = piece.fetch_queries(work, "grad", grad)
            weights, grad_scores = softmax.backward(
                work,
                scores,
                piece.fetch_queries(work, "lse", lse),
                piece.fetch_keys(work, "v", v),
                given,
                None if inner is None else piece.fetch_queries(work, "inner", inner),
                seed,
            )
            piece.add_to_keys(work, grad_v, weights, given, 1.0)
            piece.add_to_keys(work, grad_k, grad_scores, tiles[0], softmax.scale)
            result = piece.room(work, "grad_q", grad_q)
            torch.baddbmm(result, grad_scores, tiles[1], beta=0, alpha=softmax.scale, out=result)
            piece.put_queries(grad_q, result)
        del q, k, v, grad, lse  # copies, where the part has an order of its own
        heads = self.k.shape[1]
        return flat.from_queries(grad_q), flat.from_keys(grad_k, heads), flat.from_keys(grad_v, heads)

    def pieces(self, flat: Flat, number: int) -> Iterator[tuple[int, Piece]]:
        """The work of one part, each piece with a number that no piece of another part has."""
        begin = number * 2**32
        return enumerate(pieces(flat, self.key_mask, self.k.shape[1], self.work), start=begin)


def _merged(mine: Parted, other: Parted) -> Parted:
    """What both parts together give. Spoils `mine`."""
    (out, lse), (more, more_lse) = mine, other
    total = torch.logaddexp2(lse, more_lse)
    known = total.masked_fill(total == -torch.inf, 0)
    return out.mul_((lse - known).exp2_()).add_(more.mul_((more_lse - known).exp2_())), total

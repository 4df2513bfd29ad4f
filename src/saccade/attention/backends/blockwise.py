"""Attention that visits the tiles of a layout and no others, forward and backward, on any device, without a compiler.

Method: block-sparse attention (Child et al. 2019) with exact masks. The layout is cut into pieces of work
(`_pieces.py`), each a rectangular softmax in a workspace (`_tiles.py`).

Cost: time follows the visited pairs, in both directions; memory is the output (and the three gradients), a copy of
inputs that are not whole tiles, and workspaces of a few MB whatever the length.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from saccade.attention.backends._pieces import Sizes, pieces
from saccade.attention.backends._tiles import Softmax, Workspace
from saccade.attention.layout import Layout, layout
from saccade.attention.patterns import Bound
from saccade.shapes import Bool, Float, Tensor


def blockwise(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    bound: Bound,
    *,
    key_mask: Bool[Tensor, "b k"] | None,
    scale: float,
    bias: Float[Tensor, "#b #h #q #k"] | None,
    dropout: float,
) -> Float[Tensor, "b h q e"]:
    """Softmax attention over the visited tiles.

    Raises:
        ValueError: a bias was given, which is a q x k array that this backend exists to avoid.
    """
    if bias is not None:
        raise ValueError("bias must be None for backend 'blockwise', got a tensor: use 'dense' or 'reference'")
    seed = int(torch.randint(2**62, ())) if dropout else 0
    return _Blockwise.apply(q, k, v, key_mask, _Plan(bound, Softmax(scale, dropout, seed)))


@dataclass(frozen=True)
class _Plan:
    """Who visits whom, and how scores become weights."""

    bound: Bound
    softmax: Softmax


class _Blockwise(torch.autograd.Function):
    """The same pieces in the same order, forward and backward. Weights are rebuilt from the log-sum-exp."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, plan: _Plan) -> Tensor:
        run = _Run.start(q, k, v, plan)
        work, softmax = run.work, plan.softmax
        out = run.per_query(v.shape[3], 0.0, q.dtype)
        lse = run.per_query(1, -torch.inf, work.dtype)
        for number, piece in enumerate(pieces(run.layout, run.sizes, key_mask, work)):
            tiles = piece.fetch_queries(work, "q", run.q), piece.fetch_keys(work, "k", run.k)
            scores = softmax.scores(work, *tiles, piece.bias, piece.hidden)
            result = piece.room(work, "out", out)
            piece.put_queries(lse, softmax.forward(work, scores, piece.fetch_keys(work, "v", run.v), number, result))
            piece.put_queries(out, result)
        ctx.save_for_backward(q, k, v, key_mask, lse)
        ctx.plan = plan
        return run.untile(out, q.shape, run.front)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, key_mask, lse = ctx.saved_tensors
        run = _Run.start(q, k, v, ctx.plan)
        work, softmax = run.work, ctx.plan.softmax
        grad = _tiles(grad, run.layout.size, run.front)
        grad_q = run.per_query(q.shape[3], 0.0, q.dtype)
        grad_k, grad_v = (torch.zeros_like(x, dtype=work.dtype) for x in (run.k, run.v))
        for number, piece in enumerate(pieces(run.layout, run.sizes, key_mask, work)):
            tiles = piece.fetch_queries(work, "q", run.q), piece.fetch_keys(work, "k", run.k)
            scores = softmax.scores(work, *tiles, piece.bias, piece.hidden)
            values, given = piece.fetch_keys(work, "v", run.v), piece.fetch_queries(work, "grad", grad)
            piece_lse = piece.fetch_queries(work, "lse", lse)
            weights, grad_scores = softmax.backward(work, scores, piece_lse, values, given, number)
            piece.add_to_keys(work, grad_v, weights, given, 1.0)
            piece.add_to_keys(work, grad_k, grad_scores, tiles[0], softmax.scale)
            result = piece.room(work, "grad_q", grad_q)
            torch.baddbmm(result, grad_scores, tiles[1], beta=0, alpha=softmax.scale, out=result)
            piece.put_queries(grad_q, result)
        back = [
            run.untile(grad_q, q.shape, run.front),
            run.untile(grad_k, k.shape),
            run.untile(grad_v, v.shape),
        ]
        return *(x.to(q.dtype) for x in back), None, None


@dataclass(frozen=True)
class _Run:
    """The inputs of one call as flat tiles, `[b * h * tiles, size, d]`."""

    layout: Layout
    sizes: Sizes
    work: Workspace
    front: int
    q: Tensor
    k: Tensor
    v: Tensor

    @classmethod
    def start(cls, q: Tensor, k: Tensor, v: Tensor, plan: _Plan) -> "_Run":
        """Cut the inputs into tiles, with accumulation in fp32 or better."""
        found, scope = layout(plan.bound), plan.bound.scope
        size, first = found.size, scope.q_start // found.size
        front = scope.q_start - first * size
        tiles = found.query_tiles, -(-scope.n_k // size)
        sizes = Sizes(q.shape[0], q.shape[1], k.shape[1], scope.n_k, front, first, *tiles)
        work = Workspace(torch.promote_types(q.dtype, torch.float32), q.device)
        flat = _tiles(q, size, front), _tiles(k, size), _tiles(v, size)
        return cls(found, sizes, work, front, *flat)

    def per_query(self, dim: int, fill: float, dtype: torch.dtype) -> Tensor:
        """Room for a result of every query, filled for those that see nothing."""
        shape = *self.q.shape[:2], dim
        if self.layout.covers:
            return torch.empty(shape, dtype=dtype, device=self.q.device)
        return torch.full(shape, fill, dtype=dtype, device=self.q.device)

    def untile(self, flat: Tensor, shape: torch.Size, front: int = 0) -> Tensor:
        """Back to `[b h n d]`."""
        whole = flat.view(*shape[:2], -1, flat.shape[2])
        return whole[:, :, front : front + shape[2]].contiguous()


def _tiles(x: Float[Tensor, "b h n d"], size: int, front: int = 0) -> Float[Tensor, "t s d"]:
    """Flat tiles, the first and the last filled up with zeros; no copy where they are whole already."""
    end = -(front + x.shape[2]) % size
    x = pad(x, (0, 0, front, end)) if front or end else x
    return x.reshape(-1, size, x.shape[3]).contiguous()  # windows are read by strides

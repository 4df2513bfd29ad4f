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
from saccade.attention.mechanisms._clusters import Earlier, Members, Piece, chosen, nearest
from saccade.attention.states import state_dtype
from saccade.shapes import Bool, Float, Int, Tensor

ROWS = 2**18
"""Numbers of one input that are worked on at a time: about 1 MB, at least one head."""

EPS = 1e-5
"""Under the root of the layer norm."""


@dataclass(frozen=True)
class Routes:
    """How a call routes.

    Attributes:
        causal: each token in its nearest cluster, and keys before queries; otherwise the nearest tokens of each.
        window: causally, keys that a query sees at most, itself among them.
        widths: otherwise, tokens of each cluster, for each example.
        raw: whether scores are made of queries and keys as they are, not of normalised ones.
        noted: whether the sums of the tokens by nearest centroid are wanted.
    """

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
    return Routed(*_Routed.apply(q.contiguous(), k, v.contiguous(), centroids.to(state_dtype(q.dtype)), real, routes))


def normalised(x: Float[Tensor, "*_ n d"]) -> Float[Tensor, "*_ n d"]:
    """Algorithm 1, "LayerNorm: scale, bias disabled"."""
    return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=EPS)


class _Routed(torch.autograd.Function):
    """The same heads and pieces forward and backward. Weights are rebuilt from the log-sum-exp."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor | None, v: Tensor, centroids: Tensor, real: Tensor | None, routes: Routes
    ) -> tuple[Tensor | None, ...]:
        call = _Call(q, k, v, centroids, real, routes, workspace(centroids.dtype, q.device))
        out, kept = torch.empty_like(v), call.room()
        sums = None if not routes.noted else centroids.new_zeros(len(q), centroids.shape[1] + 1, q.shape[2])
        counts = None if sums is None else centroids.new_zeros(sums.shape[:2])
        for heads in call.chunks():
            units = call.units(heads)
            labels = call.place(heads, units, kept)
            if sums is not None and counts is not None:
                _note(units, labels, sums[heads], counts[heads])
            call.forward(heads, units, kept, out)
        ctx.save_for_backward(q, k, v, centroids, real, out if routes.causal else None, *kept)
        ctx.routes = routes
        if sums is None or counts is None:
            return out, None, None
        ctx.mark_non_differentiable(sums, counts)
        return out, sums[:, :-1], counts[:, :-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, centroids, real, out, *kept = ctx.saved_tensors
        call = _Call(q, k, v, centroids, real, ctx.routes, workspace(centroids.dtype, q.device))
        grads = [None if x is None else torch.empty_like(x) for x in (q, k, v)]
        for heads in call.chunks():
            call.backward(heads, _Kept(*kept), grad, out, grads)
        return *grads, None, None, None


class _Kept(NamedTuple):
    """What is kept of a call for its backward pass, besides inputs."""

    queries: Int[Tensor, "m ..."]
    keys: Int[Tensor, "m ..."]
    lse: Float[Tensor, "m s"]


@dataclass(frozen=True)
class _Call:
    """The inputs of one call and the workspace it computes in."""

    q: Tensor
    k: Tensor | None
    v: Tensor
    centroids: Tensor
    real: Tensor | None
    routes: Routes
    work: Workspace

"""Routing for `torch.compile`: how many tokens a cluster takes is read while the graph runs, in one operator."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from saccade.attention import opaque
from saccade.attention.inputs import live_lengths
from saccade.attention.mechanisms._routing.clusters import width
from saccade.attention.mechanisms._routing.gathered import InClusters, Routed, Routes
from saccade.attention.states import state_dtype
from saccade.shapes import Bool, Float, Tensor


def compiled(
    q: Float[Tensor, "m n d"],
    k: Float[Tensor, "m n d"] | None,
    v: Float[Tensor, "m n e"],
    centroids: Float[Tensor, "h c d"],
    real: Bool[Tensor, "b n"] | None,
    causal: bool,
    window: int | None,
    raw: bool,
    noted: bool,
) -> Routed:
    """As `routed`, but how many tokens a cluster takes follows from the mask."""
    k = None if k is None else k.contiguous()
    name = _named(centroids.shape[1], causal, window, raw, noted)
    found = opaque.run(name, q.contiguous(), k, v.contiguous(), centroids.to(state_dtype(q.dtype)), real)
    # What is noted is kept by the layer: with a graph behind it, it would keep all of a step and could not be copied.
    return Routed(found[0], found[1].detach(), found[2].detach()) if noted else Routed(found[0], None, None)


@opaque.constant
def _named(clusters: int, causal: bool, window: int | None, raw: bool, noted: bool) -> str:
    return opaque.name_of(_Work(Routes(clusters, causal, window, (), raw, noted)))


@dataclass(frozen=True)
class _Work(opaque.Opaque):
    """Choose, and the softmax within clusters. The widths of the routes are still to be filled in."""

    routes: Routes

    def forward(self, ctx: Any, *tensors: Any) -> tuple[Tensor, ...]:
        q, k, v, centroids, real = tensors
        live = live_lengths(real) or (q.shape[1],) * (len(q) // len(centroids))
        routes = replace(self.routes, widths=tuple(width(n, self.routes.clusters, self.routes.window) for n in live))
        found = InClusters.forward(ctx, q, k, v, centroids, real, routes)
        return tuple(each for each in found if each is not None)

    def backward(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return InClusters.backward(ctx, grad)[:3]

    def empty(self, *tensors: Any) -> tuple[Tensor, ...]:
        q, _, v, centroids, _ = tensors
        out, clusters = torch.empty_like(v), centroids.shape[1]
        if not self.routes.noted:
            return (out,)
        sums = centroids.new_empty(len(q), clusters, q.shape[2])
        return out, sums, sums.new_empty(len(q), clusters)

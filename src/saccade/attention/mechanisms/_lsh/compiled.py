"""LSH attention for `torch.compile`: how far each example reaches is read while the graph runs, in one operator."""

from dataclasses import dataclass
from typing import Any

from saccade.attention import opaque
from saccade.attention.mechanism import Mechanism
from saccade.attention.mechanisms._lsh.buckets import AmongSorted
from saccade.shapes import Bool, Float, Tensor


def compiled(
    spec: Mechanism,
    layer: int,
    causal: bool,
    q: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b g n e"],
    key_mask: Bool[Tensor, "b n"] | None,
) -> Float[Tensor, "b h n e"]:
    """What the layer of that number makes of queries and values that are zero where hidden."""
    return opaque.run(_named(spec, layer, causal), q, v, key_mask)[0]


@opaque.constant
def _named(spec: Mechanism, layer: int, causal: bool) -> str:
    return opaque.name_of(_Work(spec, layer, causal))


@dataclass(frozen=True)
class _Work(opaque.Opaque):
    """Hash, sort, and the softmax among what stands together."""

    spec: Mechanism
    layer: int
    causal: bool

    def forward(self, ctx: Any, *tensors: Any) -> tuple[Tensor, ...]:
        q, v, key_mask = tensors
        layer: Any = self.spec.build(q.shape[1], q.shape[3], v.shape[1], v.shape[3], self.layer)
        found, real, window = layer.sorted(q, key_mask, self.causal)
        ctx.shapes = q.shape, v.shape
        inputs: Any = (*(x.flatten(0, 1).contiguous() for x in (q, v)), *found, real, window)
        return (AmongSorted.forward(ctx, *inputs).unflatten(0, q.shape[:2]),)

    def backward(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found = AmongSorted.backward(ctx, grad.flatten(0, 1))
        return tuple(x.view(shape) for x, shape in zip(found[:2], ctx.shapes, strict=True) if x is not None)

    def empty(self, *tensors: Any) -> tuple[Tensor, ...]:
        q, v, _ = tensors
        return (q.new_empty(*q.shape[:3], v.shape[3]),)

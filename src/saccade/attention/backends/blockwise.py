"""Attention in tiles: visits the tiles of a layout that hold an allowed pair, on any device, without a compiler.

Method: block-sparse attention (Child et al. 2019) with exact masks. Best for windows, blocks, strides, lines.

Cost: time follows the visited pairs, in both directions; memory O(n d) (`_engine.py`).
"""

from saccade.attention.backends._engine import visit
from saccade.attention.layout import layout
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
    return visit(q, k, v, layout(bound), key_mask=key_mask, scale=scale, dropout=dropout)

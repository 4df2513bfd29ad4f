"""Attention pair by pair: a softmax over the list of keys of each query, for patterns given as lists of edges.

Method: attention along the edges of a graph (Velickovic et al. 2018), here with scaled dot products.

Cost: O(pairs d) time, in both directions; memory O(n d) and the list. A pair costs some 25 times as much as
one in a tile (docs/log.md): it pays where tiles would be nearly empty.
"""

from saccade.attention.backends._engine import visit
from saccade.attention.layout import pair_layout
from saccade.attention.patterns import Bound
from saccade.shapes import Bool, Float, Tensor


def pairs(
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
    """Softmax attention over the allowed pairs and no other.

    Raises:
        ValueError: a bias was given, which is a q x k array that this backend exists to avoid.
    """
    if bias is not None:
        raise ValueError("bias must be None for backend 'pairs', got a tensor: use 'dense' or 'reference'")
    return visit(q, k, v, pair_layout(bound), key_mask=key_mask, scale=scale, dropout=dropout)

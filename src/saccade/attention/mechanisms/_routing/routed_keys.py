"""The decoding state of routing attention: all tokens, and the cluster of each.

Cost: a step reads and copies all tokens, so n of them take O(n^2).
"""

import math
from typing import NamedTuple

from saccade.attention.mechanisms._grouped_heads import for_queries
from saccade.shapes import Bool, Float, Int, Tensor


class RoutedKeys(NamedTuple):
    """The decoding state: all tokens, in the order of their positions.

    Attributes:
        keys: as scores need them; zero where hidden.
        values: zero where hidden.
        clusters: number of the nearest centroid, for each query head; one more than there are for hidden tokens.
        key_mask: True for real tokens.
    """

    keys: Float[Tensor, "b g k d"]
    values: Float[Tensor, "b g2 k e"]
    clusters: Int[Tensor, "b h k"]
    key_mask: Bool[Tensor, "b k"]


def attended(
    q: Float[Tensor, "b h 1 d"], label: Int[Tensor, "b h 1"], state: RoutedKeys, window: int | None
) -> Float[Tensor, "b h 1 e"]:
    """Softmax over the last token and those before it in the cluster of the query."""
    heads = q.shape[1]
    earlier = (state.clusters == label) & state.key_mask[:, None]
    earlier[..., -1] = False
    if window is not None:
        earlier &= earlier.flip(-1).cumsum(-1).flip(-1) < window
    earlier[..., -1] = state.key_mask[:, None, -1]
    scores = (q @ for_queries(state.keys, heads).mT).masked_fill(~earlier[:, :, None], -math.inf) / math.sqrt(
        q.shape[3]
    )
    weights = scores.softmax(-1).masked_fill(~earlier[:, :, None], 0)
    return weights @ for_queries(state.values, heads)

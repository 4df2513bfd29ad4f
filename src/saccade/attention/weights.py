"""The weights of any attention layer: who looks at whom, and how much.

Attention is linear in its values, so a layer that is given the identity as values returns its own weights. Nothing is
asked of the mechanism but to run: what is found is what it does, also where it never forms a weight. Cost: one call
for as many keys as values have dims; O(n_q n_k) memory for the weights themselves.
"""

from collections.abc import Mapping
from typing import Any

import torch

from saccade.attention.mechanism import AttentionLayer, arguments
from saccade.shapes import Float, Tensor


def implied_weights(layer: AttentionLayer, inputs: Mapping[str, Tensor], **options: Any) -> Float[Tensor, "b h q k"]:
    """The weight of each key for each query.

    Args:
        layer: whose weights.
        inputs: what the layer takes, by name. Of the values `v` `[b g k e]` only the shape and type matter: the
            identity is given in slices of `e` columns, so that a layer sees no values of a dim it was not built for.
        options: `key_mask`, `causal` and `q_start`, as in the call that is meant.
    """
    batch, heads, keys, dim = inputs["v"].shape
    identity = torch.eye(keys, -(-keys // dim) * dim, dtype=inputs["v"].dtype, device=inputs["v"].device)
    slices = [part.expand(batch, heads, -1, -1) for part in identity.split(dim, dim=1)]
    calls = (arguments({**inputs, "v": v}) for v in slices)
    return torch.cat([layer(**call, **options) for call in calls], dim=-1)[..., :keys]

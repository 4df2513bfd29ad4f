"""How far the output of a layer is from what it should be, in float64: from its definition, or from itself.

Softmax attention under a pattern has a definition apart from every fast implementation, the backend `reference`. For
any other mechanism only rounding can be seen: the same layer in float64.
"""

import copy
from collections.abc import Mapping

import torch

from saccade.attention import Mechanism, attend
from saccade.attention.mechanism import AttentionLayer, arguments
from saccade.attention.patterns import Pattern
from saccade.shapes import Float, Tensor

ALL_ROWS = 2048
"""Longest input of which every query is compared; of longer ones a block at the start, in the middle, at the end."""
BLOCK = 256

DEFINITION, ITSELF = "definition", "itself in float64"


def output_error(
    spec: Mechanism,
    layer: AttentionLayer,
    inputs: Mapping[str, Tensor],
    out: Float[Tensor, "b h n e"],
    causal: bool = False,
) -> tuple[float, str]:
    """The largest difference of an output, relative to the largest output, and what it was held to.

    Args:
        spec: what the layer claims to be.
        layer: what made the output.
        inputs: from what: queries `q`, keys `k` and values `v`, or those of them that the mechanism takes.
        out: the output.
        causal: whether a query saw only keys up to its own position.

    Returns:
        The error, and `DEFINITION` or `ITSELF`.
    """
    wide = {name: tensor.detach().double() for name, tensor in inputs.items()}
    pattern = getattr(layer, "causal_pattern" if causal else "pattern", None)
    with torch.no_grad():
        if spec.claims.exact and isinstance(pattern, Pattern):
            return _from_definition(pattern, wide, out.detach().double()), DEFINITION
        return _relative(out.detach().double(), copy.deepcopy(layer).double()(**arguments(wide), causal=causal)), ITSELF


def _from_definition(pattern: Pattern, inputs: Mapping[str, Tensor], out: Float[Tensor, "b h n e"]) -> float:
    """Block by block of queries, as the definition takes an array of queries by keys."""
    n = out.shape[2]
    starts = range(0, n, BLOCK) if n <= ALL_ROWS else (0, n // 2, n - BLOCK)
    rows = [slice(start, min(start + BLOCK, n)) for start in starts]
    q, k, v = (inputs[name] for name in "qkv")
    wanted = [attend(q[:, :, part], k, v, pattern, q_start=part.start, backend="reference") for part in rows]
    return _relative(torch.cat([out[:, :, part] for part in rows], 2), torch.cat(wanted, 2))


def _relative(actual: Tensor, wanted: Tensor) -> float:
    largest = wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny)
    return ((actual - wanted).abs().max() / largest).item()

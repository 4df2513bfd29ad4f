"""How many queries are scored at a time where all pairs are, and which of their pairs are hidden.

Scores of some thousand queries at a time stay in a workspace of a few MB: made there, used, and made again in the
backward pass. Cost: causally, half a square of each chunk is computed in vain.
"""

import torch

from saccade.shapes import Bool, Float, Tensor

PAIRS = {"cpu": 2**20}
"""Pairs scored at a time: on a CPU their scores are 4 MB and stay in cache."""

ELSEWHERE = 2**26
"""On a GPU the starts of kernels are what counts."""

CAUSAL_ROWS = 128
"""Queries at a time in the causal form: each chunk computes half a square of them in vain."""


def pairs_at_a_time(device: torch.device) -> int:
    """Pairs in a chunk, heads and examples counted."""
    return PAIRS.get(device.type, ELSEWHERE)


def rows_at_a_time(n_q: int, n_k: int, group: int, causal: bool, pairs: int) -> int:
    """Queries in a chunk, for `group` query heads of one key head."""
    return min(n_q, max(1, pairs // (group * n_k)), CAUSAL_ROWS if causal else n_q)


def computed_pairs(n_q: int, n_k: int, heads: int, kv_heads: int, causal: bool) -> int:
    """Pairs that a call on a CPU scores, visible or not, in all heads."""
    if not causal or not n_q or not n_k:
        return heads * n_q * n_k
    step = rows_at_a_time(n_q, n_k, heads // kv_heads, True, PAIRS["cpu"])
    return heads * sum(
        min(step, n_q - start) * min(n_k, start + min(step, n_q - start)) for start in range(0, n_q, step)
    )


def hide_pairs(
    scores: Float[Tensor, "*heads r k"], real: Bool[Tensor, "*#heads 1 k"] | None, first: int | None
) -> Float[Tensor, "*heads r k"]:
    """-inf where a key is not real, and causally where it is later than its query.

    Args:
        scores: of one chunk, with the first keys of all; they are changed.
        real: which of these keys are.
        first: position of the first query; `None` where queries see later keys.
    """
    if real is not None:
        scores.masked_fill_(~real, -torch.inf)
    keys = scores.shape[-1]
    if first is not None and first + 1 < keys:  # what the first query of the chunk sees, all of them see
        later = scores.new_ones(scores.shape[-2], keys - first, dtype=torch.bool).triu_(1)
        scores[..., first:].masked_fill_(later, -torch.inf)
    return scores

"""`attend`: softmax attention under a pattern. Checks its inputs, chooses a backend, calls it.

Method: scaled dot-product attention (Vaswani et al. 2017) restricted to the pairs of a pattern.
"""

import logging
import math

import torch

from saccade.attention.backends.blockwise import blockwise
from saccade.attention.backends.dense import dense
from saccade.attention.backends.reference import reference
from saccade.attention.inputs import hide, live_lengths, validate
from saccade.attention.layout import layout
from saccade.attention.patterns import Bound, Causal, Full, Pattern
from saccade.errors import must_be, unknown
from saccade.shapes import Bool, Float, Tensor

BACKENDS = {"reference": reference, "dense": dense, "blockwise": blockwise}

DENSE_BELOW = 512
"""Lengths below which dense attention wins whatever the pattern (docs/log.md)."""

BLOCKWISE_UP_TO = 0.3
"""Share of the pairs up to which visiting only them wins over dense attention (docs/log.md)."""

log = logging.getLogger(__name__)


def attend(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    pattern: Pattern = Full(),
    *,
    key_mask: Bool[Tensor, "b k"] | None = None,
    q_start: int = 0,
    scale: int | float | None = None,
    bias: Float[Tensor, "#b #h #q #k"] | None = None,
    dropout: int | float = 0.0,
    backend: str = "auto",
) -> Float[Tensor, "b h q e"]:
    """Softmax attention in which query i sees the keys that `pattern` shows it.

    A query that may see nothing gets zeros and zero gradient. Accumulates in fp32 or better.

    Args:
        q: queries.
        k: keys; `g` heads that divide the `h` of the queries, each shared by `h / g` consecutive ones.
        v: values; their dim `e` may differ from `d`.
        pattern: who may look at whom, in absolute positions.
        key_mask: True for real keys. What stands behind False, NaN included, reaches no output and no gradient.
        q_start: the key position of the first query; a decoding step passes `n_k - n_q`.
        scale: factor on the scores, `1 / sqrt(d)` if not given.
        bias: added to the scaled scores. Only for backends `dense` and `reference`.
        dropout: share of the weights dropped, drawn from torch's global generator.
        backend: `auto`, `reference` (the definition), `dense` (torch's fused kernel) or `blockwise` (visits only
            the tiles of the pattern). A named one is used or refused, never replaced.

    Raises:
        ValueError, TypeError: inputs that do not belong together; the message names the one at fault.
    """
    validate(q, k, v, key_mask, q_start)
    _validate_options(q, k, pattern, scale, bias, dropout, backend)
    if 0 in (*q.shape, *k.shape, *v.shape):
        return _nothing(q, k, v)
    lengths = live_lengths(key_mask) if pattern.needs_length else None
    bound = pattern.bind(q.shape[2], k.shape[2], q_start, lengths=lengths, heads=q.shape[1])
    if backend == "auto":
        backend = _choose(bound, bias)
        log.debug("attend: backend %s for %s, %d x %d", backend, pattern, q.shape[2], k.shape[2])
    k, v = hide(k, v, key_mask)
    scale = 1 / math.sqrt(q.shape[3]) if scale is None else scale
    with torch.autocast(q.device.type, enabled=False):
        return BACKENDS[backend](q, k, v, bound, key_mask=key_mask, scale=scale, bias=bias, dropout=dropout)


def _nothing(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The result where an axis is empty: nothing, or zeros for queries without keys; gradients are zero."""
    zero = q[..., :0].sum() + k[..., :0].sum() + v[..., :0].sum()
    return zero.expand(*q.shape[:3], v.shape[3])


def _validate_options(
    q: Tensor,
    k: Tensor,
    pattern: object,
    scale: float | None,
    bias: Tensor | None,
    dropout: float,
    backend: str,
) -> None:
    if not isinstance(pattern, Pattern):
        raise TypeError(must_be("pattern", "a pattern such as Local(128) | Global(2)", pattern))
    if scale is not None and not (isinstance(scale, int | float) and math.isfinite(scale)):
        raise ValueError(must_be("scale", "a finite number or None", scale))
    if not (isinstance(dropout, int | float) and 0 <= dropout < 1):
        raise ValueError(must_be("dropout", "a number, at least 0 and below 1", dropout))
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(unknown("backend", backend, ["auto", *BACKENDS]))
    if bias is not None:
        _validate_bias(bias, q, (*q.shape[:3], k.shape[2]))


def _validate_bias(bias: object, q: Tensor, wanted: tuple[int, ...]) -> None:
    if not isinstance(bias, Tensor):
        raise TypeError(must_be("bias", "a tensor or None", type(bias).__name__))
    fits = bias.ndim == 4 and all(got in (1, full) for got, full in zip(bias.shape, wanted, strict=True))
    if not fits or not bias.is_floating_point() or bias.device != q.device:
        got = f"{tuple(bias.shape)} of {bias.dtype} on {bias.device}"
        constraint = f"floating point on {q.device} and broadcast to [b h q k] = {wanted}"
        raise ValueError(must_be("bias", constraint, got))


def computed(bound: Bound) -> tuple[int, int]:
    """What `attend` carries out by itself: pairs, allowed or not, and how many of them it keeps as a mask of floats.

    Both are over all examples and heads that are told apart.
    """
    found, scope = layout(bound), bound.scope
    if _choose(bound, None) == "blockwise":
        return found.visited, 0
    pairs = found.examples * found.heads * scope.n_q * scope.n_k
    if bound.pattern == Causal() and scope.n_q == scope.n_k:
        return found.pairs, 0  # the kernel skips what lies above the diagonal
    return pairs, 0 if bound.pattern == Full() else pairs


def _choose(bound: Bound, bias: Tensor | None) -> str:
    """Dense where it is as fast or the only one that can; else visit only the tiles of the pattern."""
    scope = bound.scope
    if bias is not None or bound.pattern in (Full(), Causal()) or scope.n_q * scope.n_k < DENSE_BELOW**2:
        return "dense"
    found = layout(bound)
    share = found.visited / (found.examples * found.heads * scope.n_q * scope.n_k)
    return "blockwise" if share <= BLOCKWISE_UP_TO else "dense"

"""`attend`: softmax attention under a pattern. Checks its inputs, chooses a backend, calls it.

Method: scaled dot-product attention (Vaswani et al. 2017) restricted to the pairs of a pattern.
"""

import logging
import math
from functools import reduce
from operator import or_
from typing import Any, Literal, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention

from saccade.attention.backends import _operators as operators
from saccade.attention.backends.blockwise import blockwise
from saccade.attention.backends.dense import Mask, dense, mask_of, plain
from saccade.attention.backends.pairs import pairs
from saccade.attention.backends.reference import reference
from saccade.attention.inputs import hide, live_lengths, needed, validate
from saccade.attention.layout import layout, pair_layout, touched
from saccade.attention.opaque import constant
from saccade.attention.patterns import Bound, Causal, Full, Nothing, Pattern, PerHead, Shifted, Union
from saccade.errors import must_be, unknown
from saccade.shapes import Bool, Float, Tensor

BACKENDS = {"reference": reference, "dense": dense, "blockwise": blockwise, "pairs": pairs}

TILE_COST, PAIR_COST = 1.4, 40.0
"""Time of a pair in a tile, and of one by itself, next to a pair of dense attention (docs/log.md)."""

CALL_COST = 200_000
"""Pairs of dense attention, over all heads of an example, that take as long as starting on the pieces of a layout."""

SHORT_PAIRS, SHORT_CALLS = 2**18, 64
"""Calls of up to 512 x 512 pairs are remembered, so many of them: there the checks would take longer than the work."""

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
        backend: `auto`, `reference` (the definition), `dense` (torch's fused kernel), `blockwise` (visits only the
            tiles of the pattern) or `pairs` (visits pair by pair). A named one is used or refused, never replaced.

    Raises:
        ValueError, TypeError: inputs that do not belong together; the message names the one at fault.
    """
    plain = key_mask is None and bias is None and scale is None and backend == "auto" and dropout == 0
    if plain and not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu"):
        try:
            short = _short_calls[pattern, q_start, q.shape, k.shape, v.shape, q.dtype, q.is_cpu]
            return scaled_dot_product_attention(q, k, v, short.mask, is_causal=short.causal, enable_gqa=short.grouped)
        except (KeyError, AttributeError, TypeError, RuntimeError):  # a new call, or one that the checks refuse
            pass
    validate(q, k, v, key_mask, q_start)
    _validate_options(q, k, pattern, scale, bias, dropout, backend)
    if 0 in (*q.shape, *k.shape, *v.shape):
        return _nothing(q, k, v)
    scale = 1 / math.sqrt(q.shape[3]) if scale is None else scale
    if torch.compiler.is_exporting():
        return _exported(q, k, v, pattern, key_mask, q_start, scale, bias, dropout, backend)
    if torch.compiler.is_compiling():
        return _traced(q, k, v, pattern, key_mask, q_start, scale, bias, dropout, backend)
    key_mask = needed(key_mask)
    lengths = live_lengths(key_mask) if pattern.needs_length else None
    bound = pattern.bind(q.shape[2], k.shape[2], q_start, lengths=lengths, heads=q.shape[1])
    if backend == "auto":
        backend = _choose(bound, bias is not None)
        log.debug("attend: backend %s for %s, %d x %d", backend, pattern, q.shape[2], k.shape[2])
        if plain and backend == "dense" and q.shape[2] * k.shape[2] <= SHORT_PAIRS:
            _remember(q, k, v, pattern, q_start, mask_of(bound, q.dtype, q.device))
    k, v = hide(k, v, key_mask)
    with torch.autocast(q.device.type, enabled=False):
        return BACKENDS[backend](q, k, v, bound, key_mask=key_mask, scale=scale, bias=bias, dropout=dropout)


def _traced(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    key_mask: Tensor | None,
    q_start: int,
    scale: float,
    bias: Tensor | None,
    dropout: float,
    backend: str,
) -> Tensor:
    """The same for `torch.compile`: the backend is chosen while tracing, its work is one operator."""
    if backend == "reference":
        raise ValueError(must_be("backend", "another than 'reference' under torch.compile", backend))
    text, (_, h, n_q, _), n_k = operators.text_of(pattern), q.shape, k.shape[2]
    if backend == "auto":
        backend = _chosen(text, h, n_q, n_k, q_start, bias is not None)
    k, v = hide(k, v, key_mask)
    with torch.autocast(q.device.type, enabled=False):
        if backend == "dense":
            kind = _kind(text, n_q, n_k, q_start) if key_mask is None and bias is None else "masked"
            mask = operators.allowed(q, key_mask, text, n_k, q_start) if kind == "masked" else None
            if mask is not None and bias is not None:
                mask = bias.to(q.dtype).masked_fill(~mask, -torch.inf)
            causal, grouped = kind == "causal", k.shape[1] != q.shape[1]
            return scaled_dot_product_attention(q, k, v, mask, float(dropout), causal, scale=scale, enable_gqa=grouped)
        if bias is not None:
            raise ValueError(must_be("bias", f"None for backend {backend!r}", "a tensor"))
        seed = torch.randint(2**62, ()) if dropout else None
        return operators.visit(q, k, v, key_mask, seed, text, backend, q_start, float(scale), float(dropout))[0]


def _exported(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    key_mask: Tensor | None,
    q_start: int,
    scale: float,
    bias: Tensor | None,
    dropout: float,
    backend: str,
) -> Tensor:
    """The same for `torch.export`, whose graph serves every length: nothing is chosen or made while tracing.

    Where all pairs are seen, or all up to a query's own position, it is torch's kernel, with a mask if one is needed.
    All else is one operator, which ONNX does not have: for ONNX tiles give way to a mask.
    """
    if dropout:
        raise ValueError(must_be("dropout", "0 under torch.export, which is for inference", dropout))
    fused = backend in ("auto", "dense") or torch.onnx.is_in_onnx_export()
    if pattern in (Full(), Causal()) and fused:
        return plain(q, *hide(k, v, key_mask), pattern == Causal(), key_mask, q_start, scale, bias)
    if bias is not None:
        raise ValueError(
            must_be("bias", f"None for {pattern!r} and backend {backend!r} under torch.export", "a tensor")
        )
    return _attend(q, k, v, key_mask, operators.text_of(pattern), backend, q_start, float(scale))


@torch.library.custom_op("saccade::attend", mutates_args=())
def _attend(
    q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, text: str, backend: str, q_start: int, scale: float
) -> Tensor:
    """`attend` in an exported graph."""
    pattern = operators.pattern_of(text)
    out = attend(q, k, v, pattern, key_mask=key_mask, q_start=q_start, scale=scale, backend=backend)
    return out.contiguous()


@_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *options: Any) -> Tensor:
    return q.new_empty(*q.shape[:3], v.shape[3])


@constant
def _chosen(text: str, h: int, n_q: int, n_k: int, q_start: int, biased: bool) -> str:
    """The backend for a pattern that is given as text."""
    bound = operators.pattern_of(text).bind(n_q, n_k, q_start, heads=h)
    return _choose(bound, biased)


@constant
def _kind(text: str, n_q: int, n_k: int, q_start: int) -> Literal["full", "causal", "masked"]:
    """What torch's kernel has to be told of a pattern: nothing, one word, or a mask."""
    pattern = operators.pattern_of(text)
    if pattern == Full():
        return "full"
    return "causal" if pattern == Causal() and n_q == n_k and q_start == 0 else "masked"


class _Short(NamedTuple):
    """What torch's kernel needs to know of a short call that has been checked before."""

    mask: Tensor | None
    causal: bool
    grouped: bool


_short_calls: dict[tuple[object, ...], _Short] = {}


def _remember(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, q_start: int, mask: Mask) -> None:
    if not q.is_cpu:
        return
    if len(_short_calls) >= SHORT_CALLS:
        _short_calls.clear()
    key = pattern, q_start, q.shape, k.shape, v.shape, q.dtype, True
    _short_calls[key] = _Short(mask.added, mask.causal, k.shape[1] != q.shape[1])


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
    if pattern.examples not in (None, q.shape[0]):
        raise ValueError(must_be("batch size", f"{pattern.examples}, as in {pattern!r}", q.shape[0]))
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

    Both are over all heads, and all examples that are told apart.
    """
    scope = bound.scope
    every = scope.examples * scope.heads * scope.n_q * scope.n_k
    backend = _choose(bound, False)
    if backend != "dense":
        return (layout if backend == "blockwise" else pair_layout)(bound).visited, 0
    mask = mask_of(bound, torch.float32, torch.device("cpu"))
    if mask.causal:
        return layout(bound).pairs, 0  # the kernel skips what lies above the diagonal
    return every, 0 if mask.added is None else mask.added.numel()


def _choose(bound: Bound, biased: bool) -> str:
    """The backend with the shortest estimated time for one example."""
    scope = bound.scope
    every = scope.examples * scope.heads * scope.n_q * scope.n_k
    call = scope.examples * CALL_COST
    if biased or bound.pattern in (Full(), Causal()) or every <= call:
        return "dense"
    costs = {"dense": float(every)}
    if bound.pattern.has_lists:
        fewest = layout(Bound(_unlisted(bound.pattern), scope)).pairs
        if TILE_COST * fewest >= every:
            return "dense"
        if PAIR_COST * fewest < every:
            costs["pairs"] = call + PAIR_COST * pair_layout(bound).visited
        if call + TILE_COST * touched(bound) >= min(costs.values()):  # which is quick to know, other than the layout
            return min(costs, key=costs.__getitem__)
    costs["blockwise"] = call + TILE_COST * layout(bound).visited
    return min(costs, key=costs.__getitem__)


def _unlisted(pattern: Pattern) -> Pattern:
    """What a pattern shows beside lists of pairs: where that is much, a list of all pairs is not worth making."""
    match pattern:
        case Union(members):
            return reduce(or_, map(_unlisted, members))
        case PerHead(patterns):
            return PerHead([_unlisted(each) for each in patterns])
        case Shifted(inner, n):
            return Shifted(_unlisted(inner), n)
    return Nothing() if pattern.has_lists else pattern

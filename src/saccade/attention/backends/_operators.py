"""The backends as operators, for `torch.compile`, which does not look into them.

A graph can hold text but no pattern, so a pattern goes by its `repr`. Whoever traced the graph has told us the
pattern; in a process that only loaded it, the text is read, which works for all but patterns that carry a tensor.
"""

from typing import Any

import torch

from saccade.attention.backends._engine import backward, forward
from saccade.attention.backends._tiles import Softmax
from saccade.attention.inputs import live_lengths
from saccade.attention.layout import Layout, layout, pair_layout
from saccade.attention.opaque import constant
from saccade.attention.patterns import Bound, Pattern, parse
from saccade.shapes import Tensor

_known: dict[str, Pattern] = {}
LAYOUTS = {"blockwise": layout, "pairs": pair_layout}


@constant
def text_of(pattern: Pattern) -> str:
    """The name of a pattern in graphs."""
    text = repr(pattern)
    _known[text] = pattern
    return text


def pattern_of(text: str) -> Pattern:
    """The pattern of that name.

    Raises:
        ValueError: it carries a tensor and was never seen by this process.
    """
    return _known[text] if text in _known else parse(text)


def _bound(text: str, n_q: int, n_k: int, q_start: int, heads: int, key_mask: Tensor | None) -> Bound:
    pattern = pattern_of(text)
    lengths = live_lengths(key_mask) if pattern.needs_length else None
    return pattern.bind(n_q, n_k, q_start, lengths=lengths, heads=heads)


@torch.library.custom_op("saccade::allowed", mutates_args=())
def allowed(q: Tensor, key_mask: Tensor | None, text: str, n_k: int, q_start: int) -> Tensor:
    """Which pairs pattern and key mask allow, `[b h q k]`."""
    b, h, n_q, _ = q.shape
    mask = _bound(text, n_q, n_k, q_start, h, key_mask).dense(q.device).expand(b, h, n_q, n_k)
    return mask.contiguous() if key_mask is None else mask & key_mask[:, None, None]


@allowed.register_fake
def _(q: Tensor, key_mask: Tensor | None, text: str, n_k: int, q_start: int) -> Tensor:
    return q.new_empty(*q.shape[:3], n_k, dtype=torch.bool)


@torch.library.custom_op("saccade::visit", mutates_args=())
def visit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    seed: Tensor | None,
    text: str,
    backend: str,
    q_start: int,
    scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """The output and its log-sum-exp. The seed of the dropout is a tensor because it is drawn in the graph."""
    out, lse = forward(q, k, v, key_mask, *_plan(q, k, key_mask, seed, text, backend, q_start, scale, dropout))
    return out.contiguous(), lse.contiguous()  # compiled code relies on the strides that it was told


@visit.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(*q.shape[:3], 1, dtype=_wide(q))


@torch.library.custom_op("saccade::visit_backward", mutates_args=())
def visit_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
    seed: Tensor | None,
    text: str,
    backend: str,
    q_start: int,
    scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values."""
    plan = _plan(q, k, key_mask, seed, text, backend, q_start, scale, dropout)
    found = backward(grad, q, k, v, key_mask, out, lse, *plan)
    return found[0].contiguous(), found[1].contiguous(), found[2].contiguous()


@visit_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _plan(
    q: Tensor,
    k: Tensor,
    key_mask: Tensor | None,
    seed: Tensor | None,
    text: str,
    backend: str,
    q_start: int,
    scale: float,
    dropout: float,
) -> tuple[Layout, Softmax]:
    bound = _bound(text, q.shape[2], k.shape[2], q_start, q.shape[1], key_mask)
    return LAYOUTS[backend](bound), Softmax(scale, dropout, 0 if seed is None else int(seed))


def _wide(q: Tensor) -> torch.dtype:
    return torch.promote_types(q.dtype, torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, key_mask, seed, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, key_mask, *output, seed)


def _gradients(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *visit_backward(grad, *ctx.saved_tensors, *ctx.options), *(None,) * 7


visit.register_autograd(_gradients, setup_context=_save)

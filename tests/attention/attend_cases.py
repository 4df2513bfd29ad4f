"""Calls of `attend` and what the oracle says to them, for the tests of `attend`."""

from functools import lru_cache

import torch
from pattern_cases import NAMED

import oracles
from saccade import Causal, Local, Pattern, Random, Strided, attend, big_bird, longformer

BACKENDS = ("reference", "dense", "blockwise", "pairs")
B, H, G, D, E = 2, 6, 3, 5, 7
DRAWN = {
    "big_bird": big_bird(block=4),
    "big_bird_heads": big_bird(block=8, random_blocks=2, per_head=True),
    "big_bird_causal": big_bird(block=4).causal(),
    "random_window": Random(2, block=5) | Local(3),
    "random_heads": Random(1, block=16, per_head=True),
    "longformer": longformer(window=8, first=1),
    "strides_and_draws": (Random(2, block=7, per_head=True) | Strided(6)) & Causal(),
}
PATTERNS: dict[str, Pattern] = {**{name: case.pattern for name, case in NAMED.items()}, **DRAWN}
MASKS = ("none", "right", "left", "holes", "one", "empty")


def key_mask(kind: str, batch: int, n_k: int) -> torch.Tensor | None:
    """Real keys of each example; examples differ."""
    if kind == "none":
        return None
    mask = torch.ones(batch, n_k, dtype=torch.bool)
    for example in range(batch):
        hidden = min(n_k, 1 + (n_k * (example + 1)) // (batch + 2))
        if kind == "right":
            mask[example, n_k - hidden :] = False
        elif kind == "left":
            mask[example, :hidden] = False
        elif kind == "holes":
            mask[example, example::3] = False
        elif kind == "one":
            mask[example] = torch.arange(n_k) == (n_k // 2 + example) % max(n_k, 1)
        elif kind == "empty" and example == 0:
            mask[example] = False
    return mask


def live_lengths(mask: torch.Tensor | None) -> tuple[int, ...] | None:
    """One past the last real token: what stands further right is padding and changes nothing."""
    if mask is None:
        return None
    return tuple(max((place + 1 for place, real in enumerate(row) if real), default=0) for row in mask.tolist())


def allowed(pattern, n_q, n_k, q_start, heads, mask) -> torch.Tensor:
    """Bool[b h q k] from the pattern's dense mask, which `test_patterns` holds against the predicates."""
    bound = pattern.bind(n_q, n_k, q_start, lengths=live_lengths(mask), heads=heads)
    dense = bound.dense()
    dense = dense.expand(*(1,) * (4 - dense.ndim), *dense.shape)
    return dense if mask is None else dense & mask[:, None, None, :]


def random_inputs(n_q, n_k, heads=H, groups=G, batch=B, dim=D, value_dim=E, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1000 * n_q + n_k)
    shapes = ((batch, heads, n_q, dim), (batch, groups, n_k, dim), (batch, groups, n_k, value_dim))
    wide = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    wide.append(torch.randn(batch, heads, n_q, value_dim, generator=generator, dtype=torch.float64))
    return [tensor.to(dtype) for tensor in wide]


def with_gradients(function, *inputs, upstream):
    """Output and the gradients of the inputs."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    out = function(*leaves)
    if not out.requires_grad:  # nothing went in: no queries
        assert out.numel() == 0
        return out, *(torch.zeros_like(leaf) for leaf in leaves)
    gradients = torch.autograd.grad(out, leaves, upstream.to(out.dtype), materialize_grads=True)
    return out.detach(), *gradients


@lru_cache(maxsize=256)
def expected(pattern, n_q, n_k, q_start, heads, groups, mask_kind, scale=None, dtype=torch.float64):
    """The oracle's output and gradients in float64, for inputs that were rounded to `dtype`."""
    rounded = random_inputs(n_q, n_k, heads, groups, dtype=dtype)
    q, k, v, upstream = (tensor.double() for tensor in rounded)
    seen = allowed(pattern, n_q, n_k, q_start, heads, key_mask(mask_kind, B, n_k))
    return with_gradients(lambda q, k, v: oracles.attention(q, k, v, seen, scale), q, k, v, upstream=upstream)


def got(pattern, n_q, n_k, q_start, heads, groups, mask_kind, backend, scale=None, dtype=torch.float64):
    q, k, v, upstream = random_inputs(n_q, n_k, heads, groups, dtype=dtype)
    mask = key_mask(mask_kind, B, n_k)
    return with_gradients(
        lambda q, k, v: attend(q, k, v, pattern, key_mask=mask, q_start=q_start, scale=scale, backend=backend),
        *(q, k, v),
        upstream=upstream,
    )


def answer_or_refusal(function):
    """What it gives, or the message with which it refuses."""
    try:
        return function()
    except (RuntimeError, TypeError, ValueError) as refusal:
        return str(refusal)


def assert_same(actual, wanted, tolerance=1e-12):
    for name, one, other in zip(("out", "dq", "dk", "dv"), actual, wanted, strict=True):
        assert one.shape == other.shape, name
        error = (one.double() - other).abs().max().item() if one.numel() else 0.0
        size = max(1.0, other.abs().max().item()) if one.numel() else 1.0
        assert error <= tolerance * size, f"{name} is off by {error:.2e}"

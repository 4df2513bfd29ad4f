"""Our rows of the tables: what is called, what it is held to before it is timed, how fast it should be."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from saccade import Causal, Local, attend, big_bird
from saccade.attention import to_mechanism
from saccade.attention.patterns import Pattern
from speed.timing import Call

Builder = Callable[[int, int, int], Call]
"""Heads, length and head dim to the attention that is timed."""
Goals = Mapping[int, tuple[float, float]]
"""Length to the ratios that are aimed at, forward, and forward + backward."""


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: what it is called there.
        build: gives what is timed, ready for inputs of one size.
        check: raises an `AssertionError` if that computes something else than it should.
        goals: how fast it should be.
        backward: whether it has a backward pass here.
        tokens_first: whether it likes inputs that are `[b n h d]` in memory.
    """

    name: str
    build: Builder
    check: Callable[["Row"], None]
    goals: Goals = field(default_factory=dict)
    backward: bool = True
    tokens_first: bool = False


def equals(definition: Call, heads: int = 2, n: int = 1024, dim: int = 16) -> Callable[[Row], None]:
    """A check of outputs and gradients against those of the definition."""

    def check(row: Row) -> None:
        call = row.build(heads, n, dim)
        inputs = [torch.randn(1, heads, n, dim, requires_grad=row.backward) for _ in range(3)]
        out, wanted = call(*inputs), definition(*inputs)
        close(out, wanted)
        if row.backward:
            grad = torch.randn_like(out)
            found, wanted = (torch.autograd.grad(each, inputs, grad) for each in (out, wanted))
            for one, other in zip(found, wanted, strict=True):
                close(one, other)

    return check


def close(found: Tensor, wanted: Tensor) -> None:
    """Equal but for rounding, which grows over sums of a thousand keys."""
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What every ratio is relative to: torch's fused kernel, without a mask."""
    return scaled_dot_product_attention(q, k, v)


def under(pattern: Pattern) -> Call:
    """The definition of attention under a pattern."""
    return lambda q, k, v: attend(q, k, v, pattern, backend="reference")


def pattern_row(pattern: Pattern, goals: Goals | None = None, name: str = "") -> Row:
    """`attend` under a pattern, with the backend that it chooses."""

    def build(heads: int, n: int, dim: int) -> Call:
        return lambda q, k, v: attend(q, k, v, pattern)

    return Row(name or repr(pattern), build, equals(under(pattern)), goals or {})


def linear_definition(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Katharopoulos et al. 2020, equation 4, with all weights."""
    phi_q, phi_k = (torch.where(x > 0, x + 1, x.clamp(max=0).exp()) for x in (q, k))
    weights = phi_q @ phi_k.mT
    weights = weights.tril() if causal else weights
    return weights / weights.sum(-1, keepdim=True) @ v


def linear_row(causal: bool, goals: Goals) -> Row:
    """Linear attention."""

    def build(heads: int, n: int, dim: int) -> Call:
        return partial(to_mechanism("linear").build(heads, dim), causal=causal)

    check = equals(partial(linear_definition, causal=causal))
    return Row("linear, causal" if causal else "linear", build, check, goals)


def our_rows() -> list[Row]:
    """Those with a goal, and causal dense attention."""
    return [
        pattern_row(Local(128), {4096: (10, 10), 16384: (38, 38)}),
        pattern_row(Local(128, 0), {4096: (15, 16), 16384: (50, 55)}),
        pattern_row(big_bird(), {4096: (4.2, 4.2), 16384: (16, 14)}, "big_bird()"),
        linear_row(False, {4096: (15, 18)}),
        linear_row(True, {4096: (12, 12), 16384: (36, 42)}),
        pattern_row(Causal(), name="Causal()"),
    ]


def backend_of(call: Call, inputs: list[Tensor]) -> str:
    """What `auto` chose, from its log; short calls that it remembers are dense and leave none."""
    messages: list[str] = []
    log, handler = logging.getLogger("saccade.attention.dispatch"), logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    with torch.no_grad():
        call(*inputs)
    log.removeHandler(handler)
    log.setLevel(level)
    return messages[-1].split()[2] if messages else "dense"

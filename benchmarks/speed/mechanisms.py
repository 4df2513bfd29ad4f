"""Mechanisms that find their own pattern or compress their keys, beside other libraries', with their memory."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, normalize

from saccade.attention import to_mechanism
from saccade.attention.mechanism import AttentionLayer
from speed.mechanism_peers import COMPUTES, mechanism_peers
from speed.ratios import Size, check, checked, said, table
from speed.rows import Goals, Row, close, dense, equals
from speed.timing import Call, Timer


def found_patterns(lengths: Iterable[int], timer: Timer, peers: bool) -> None:
    """Every mechanism and every peer, forward, and forward + backward, and the most memory that takes."""
    rows = our_rows()
    check(rows)
    others, missing = checked(mechanism_peers() if peers else [])
    for n in lengths:
        table(Size(8, n, 64), [*rows, *others], timer, memory=True)
    said(COMPUTES if others else "", missing)


def our_rows() -> list[Row]:
    """With the sizes that the goals name."""
    return [
        row("lsh", "lsh(bucket={n}, rounds=1)", shared, {4096: (3.2, 4.5), 16384: (12, 15)}),
        row("routing", "routing(clusters=1)", layer_normed, {4096: (7, 8), 16384: (12, 14)}),
        row("sinkhorn", "sinkhorn(block={n})", dense, {4096: (7, 7), 16384: (16, 16)}),
        row("linformer(max_length={n})", "", None, {4096: (5.5, 5.5), 16384: (18, 18)}),
        row("compressed", "", None, {4096: (2.3, 2.3)}),
        Row("efficient", partial(build, "efficient"), equals(two_softmaxes), {4096: (12, 12)}),
        Row("efficient, causal", running, equals(partial(wide, "efficient", causal=True))),
        row("rfa", "", None, {4096: (4, 5)}),
        row("synthesizer(max_length={n})", "", None, {}),
        performer_row(False, {4096: (4.3, 5.5), 16384: (16, 18)}),
        performer_row(True, {4096: (2.9, 3.4), 16384: (10, 12)}),
    ]


def performer_row(causal: bool, goals: Goals) -> Row:
    """FAVOR+ with 256 features, held to all its weights written out."""

    def build(heads: int, n: int, dim: int) -> Call:
        return partial(fresh("performer", heads, n, dim), causal=causal)

    def definition(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        directions = fresh("performer", *q.shape[1:]).directions
        q, k = (x / x.shape[3] ** 0.25 for x in (q, k))
        exponents = [x @ directions.mT - x.square().sum(-1, keepdim=True) / 2 for x in (q, k)]
        weights = exponents[0].exp() @ exponents[1].exp().mT
        weights = weights.tril() if causal else weights
        return weights / weights.sum(-1, keepdim=True) @ v

    return Row("performer, causal" if causal else "performer", build, equals(definition), goals)


def row(text: str, limit: str, definition: Call | None, goals: Goals) -> Row:
    """One mechanism, held to dense attention where a limit of it is that, and else to itself in float64.

    Args:
        text: its expression; `{n}` stands for the length.
        limit: the expression of a limit of it.
        definition: what the limit equals.
        goals: how fast it should be.
    """
    given = definition or partial(wide, text)
    return Row(text.partition("(")[0], partial(build, text), partial(in_the_limit, limit or text, given), goals)


def build(text: str, heads: int, n: int, dim: int) -> Call:
    """A layer as in training, which is what takes longest."""
    layer = fresh(text, heads, n, dim)
    return lambda q, k, v: layer(q, k, v)


def running(heads: int, n: int, dim: int) -> Call:
    """Efficient attention with a running softmax."""
    return partial(fresh("efficient", heads, n, dim), causal=True)


def fresh(text: str, heads: int, n: int, dim: int) -> AttentionLayer:
    """The same layer each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return to_mechanism(text.format(n=n)).build(heads, dim)


def in_the_limit(limit: str, definition: Call, row: Row) -> None:
    """Outputs and gradients equal the definition's."""
    inputs = [torch.randn(1, 2, 300, 16, requires_grad=True) for _ in range(3)]
    out, wanted = fresh(limit, 2, 300, 16).eval()(*inputs), definition(*inputs)
    close(out, wanted)
    grad = torch.randn_like(out)
    given = {"allow_unused": True, "materialize_grads": True}
    found, sought = (torch.autograd.grad(each, inputs, grad, **given) for each in (out, wanted))
    for one, other in zip(found, sought, strict=True):
        close(one, other)


def wide(text: str, q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """The same layer in float64."""
    layer = fresh(text, q.shape[1], q.shape[2], q.shape[3]).eval().double()
    return layer(q.double(), k.double(), v.double(), causal=causal).float()


def two_softmaxes(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Shen et al. 2018, equation 8."""
    return q.softmax(-1) @ (k.softmax(-2).mT @ v)


def shared(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Reformer in one bucket: queries are keys of length 1, and nobody sees itself."""
    scores = q @ normalize(q, dim=-1).mT / q.shape[3] ** 0.5
    itself = torch.eye(q.shape[2], dtype=torch.bool)
    return scores.masked_fill(itself, -torch.inf).softmax(-1) @ v


def layer_normed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Routing in one cluster."""
    normed: Callable[[Tensor], Tensor] = partial(layer_norm, normalized_shape=[q.shape[3]])
    return dense(normed(q), normed(k), v)

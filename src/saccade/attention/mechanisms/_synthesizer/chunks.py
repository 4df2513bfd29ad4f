"""Attention by a weighted sum of logits, of which each may come from the query, its position, or query and key.

For some thousand queries at a time the logits are made in a workspace, turned into weights there, and multiplied with
the values; coming back they are made again. What is kept is what goes in, and a number for each query.

Cost: O(n^2 e) time besides that of the logits; memory O(n), and workspaces of a few MB.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from saccade.attention.backends._tiles import LOG2E, Softmax, Workspace, workspace
from saccade.attention.mechanisms._query_chunks import hide_pairs, pairs_at_a_time, rows_at_a_time
from saccade.shapes import Bool, Float, Tensor

SOFTMAX = Softmax(scale=1.0, dropout=0.0, seed=0)

Given = Sequence[Tensor]
"""What a part of the logits has learned: each begins `[g s ...]`, for the `s` query heads of each key head."""

Share = Tensor | float
"""By how much a part of the logits counts."""


class Chunk(NamedTuple):
    """Some queries of some heads and examples, and the first keys, which are all that they see.

    Attributes:
        work: where its logits are made.
        q: its queries; `None` where no part reads them.
        k: its keys; `None` where no part reads them.
        rows: which queries they are.
        end: how many keys.
    """

    work: Workspace
    q: Float[Tensor, "b g s q d"] | None
    k: Float[Tensor, "b g k d"] | None
    rows: slice
    end: int


class Logits(ABC):
    """One part of the logits."""

    @abstractmethod
    def whole(
        self, q: Float[Tensor, "b g s q d"] | None, k: Float[Tensor, "b g k d"] | None, given: Given
    ) -> Float[Tensor, "*#b g s q k"]:
        """The definition: all of them at once. It serves `torch.export`, whose graph must fit every length."""

    @abstractmethod
    def add(self, chunk: Chunk, logits: Float[Tensor, "b g s q k"], given: Given, share: Share) -> None:
        """Add them to those of a chunk, as much as their share says."""

    @abstractmethod
    def backward(
        self,
        chunk: Chunk,
        grad: Float[Tensor, "b g s q k"],
        given: Given,
        share: Share,
        grads: Chunk,
        learned: Sequence[Tensor | None],
    ) -> Tensor:
        """Add the gradients of queries and keys to `grads`, those of `given` to `learned` where one is wanted.

        Returns:
            The gradient of the share: the sum of the logits times `grad`.
        """


@dataclass(frozen=True)
class Plan:
    """What a call computes.

    Attributes:
        logits: the parts.
        reads: how many tensors each is given.
        queries: how many there are.
        group: query heads of each key head.
        causal: whether a query sees no later key.
        q_start: position of the first query.
    """

    logits: tuple[Logits, ...]
    reads: tuple[int, ...]
    queries: int
    group: int
    causal: bool
    q_start: int

    def split(self, given: Sequence[Any]) -> list[Sequence[Any]]:
        """What belongs to each part."""
        ends = [sum(self.reads[: number + 1]) for number in range(len(self.reads))]
        return [given[end - count : end] for end, count in zip(ends, self.reads, strict=True)]


def synthesized(
    q: Float[Tensor, "b g s q d"] | None,
    k: Float[Tensor, "b g k d"] | None,
    v: Float[Tensor, "b g k e"],
    key_mask: Bool[Tensor, "b k"] | None,
    shares: Float[Tensor, " p"] | None,
    given: Sequence[Given],
    plan: Plan,
) -> Float[Tensor, "b g s q e"]:
    """What each query takes from the values. Hidden keys and values are zero."""
    flat = [tensor for part in given for tensor in part]
    shape = *v.shape[:2], plan.group, plan.queries, v.shape[3]
    if 0 in (*shape, v.shape[2]):
        return sum((x[..., :0].sum() for x in (q, k, shares) if x is not None), v[..., :0].sum()).expand(shape)
    if torch.compiler.is_exporting():
        return _exported(q, k, v, shares, key_mask, given, plan)
    return _Synthesized.apply(q, k, v, shares, key_mask, plan, *flat)


def _exported(
    q: Tensor | None,
    k: Tensor | None,
    v: Tensor,
    shares: Tensor | None,
    real: Tensor | None,
    given: Sequence[Given],
    plan: Plan,
) -> Float[Tensor, "b g s q e"]:
    """The same in one piece."""
    parts = [part.whole(q, k, own) for part, own in zip(plan.logits, given, strict=True)]
    logits = v.new_zeros(*v.shape[:2], plan.group, plan.queries, v.shape[2])
    for part, share in zip(parts, [1.0] if shares is None else shares.unbind(), strict=True):
        logits = logits + part * share
    logits = hide_pairs(
        logits, None if real is None else real[:, None, None, None], plan.q_start if plan.causal else None
    )
    highest = logits.detach().amax(-1, keepdim=True).clamp(min=torch.finfo(v.dtype).min)
    weights = (logits - highest).exp()
    total = weights.sum(-1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)
    return weights @ v[:, :, None] / total


class _Cut(NamedTuple):
    """Where a chunk stands."""

    examples: slice
    heads: slice
    rows: slice
    end: int

    def queries(self, x: Float[Tensor, "b g s q f"]) -> Float[Tensor, "b2 g2 s q2 f"]:
        """What belongs to its queries."""
        return x[self.examples, self.heads, :, self.rows]

    def keys(self, x: Float[Tensor, "b g k f"]) -> Float[Tensor, "b2 g2 k2 f"]:
        """What belongs to its keys."""
        return x[self.examples, self.heads, : self.end]


class _Call(NamedTuple):
    """The inputs of one call."""

    q: Tensor | None
    k: Tensor | None
    v: Tensor
    shares: Tensor | None
    real: Tensor | None
    plan: Plan
    given: Sequence[Tensor]

    def cuts(self) -> Iterator[_Cut]:
        """All queries. Several examples share a chunk if all their heads do."""
        (b, g, n_k, _), plan = self.v.shape, self.plan
        pairs = pairs_at_a_time(self.v.device)
        rows = rows_at_a_time(plan.queries, n_k, plan.group, plan.causal, pairs)
        heads = max(1, pairs // (plan.group * rows * n_k))
        examples = max(1, heads // g)
        for example in range(0, b, examples):
            for head in range(0, g, heads):
                for row in range(0, plan.queries, rows):
                    stop = min(row + rows, plan.queries)
                    end = min(n_k, plan.q_start + stop) if plan.causal else n_k
                    yield _Cut(slice(example, example + examples), slice(head, head + heads), slice(row, stop), end)

    def chunk(self, work: Workspace, cut: _Cut) -> Chunk:
        """What belongs to it."""
        q, k = None if self.q is None else cut.queries(self.q), None if self.k is None else cut.keys(self.k)
        return Chunk(work, q, k, cut.rows, cut.end)

    def parts(self, cut: _Cut) -> Iterator[tuple[Logits, Given, Share]]:
        """Each part of the logits with what it has learned for these heads, and its share."""
        given = self.plan.split([tensor[cut.heads] for tensor in self.given])
        shares = [1.0] * len(given) if self.shares is None else self.shares.unbind()
        return zip(self.plan.logits, given, shares, strict=True)

    def logits(self, chunk: Chunk, cut: _Cut) -> Float[Tensor, "b2 g2 s q2 k2"]:
        """Their sum in units of log 2, -inf where a pair is hidden."""
        v, plan = cut.keys(self.v), self.plan
        logits = chunk.work.take("scores", *v.shape[:2], plan.group, cut.rows.stop - cut.rows.start, cut.end).zero_()
        for part, given, share in self.parts(cut):
            part.add(chunk, logits, given, share * LOG2E)
        real = None if self.real is None else self.real[cut.examples, None, None, None, : cut.end]
        return hide_pairs(logits, real, plan.q_start + cut.rows.start if plan.causal else None)


def _forward(call: _Call) -> tuple[Float[Tensor, "b g s q e"], Float[Tensor, "b g s q 1"]]:
    """The output, and the log-sum-exp of each query."""
    v, plan, work = call.v, call.plan, _room(call.v)
    rows = *v.shape[:2], plan.group, plan.queries
    out, lse = v.new_empty(*rows, v.shape[3]), v.new_empty(*rows, 1)
    for cut in call.cuts():
        logits = call.logits(call.chunk(work, cut), cut)
        flat, values = _by_key_head(logits), cut.keys(v).flatten(0, 1)
        result = work.take("out", *flat.shape[:2], v.shape[3])
        back = SOFTMAX.forward(work, flat, values, 0, result)
        cut.queries(out).copy_(result.view(*logits.shape[:4], -1))
        cut.queries(lse).copy_(back.view(*logits.shape[:4], 1))
    return out, lse


class _Synthesized(torch.autograd.Function):
    """The same chunks forward and backward; logits are made twice and never kept."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor | None,
        k: Tensor | None,
        v: Tensor,
        shares: Tensor | None,
        real: Tensor | None,
        plan: Plan,
        *given: Tensor,
    ) -> Tensor:
        out, lse = _forward(_Call(q, k, v, shares, real, plan, given))
        ctx.save_for_backward(q, k, v, shares, real, lse, *given)
        ctx.plan = plan
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, shares, real, lse, *given = ctx.saved_tensors
        plan, work = ctx.plan, _room(v)
        call = _Call(q, k, v, shares, real, plan, given)
        grad_q, grad_k, grad_v = (None if x is None else x.new_zeros(x.shape) for x in (q, k, v))
        assert grad_v is not None
        wanted = ctx.needs_input_grad[-len(given) :] if given else ()
        learned = [x.new_zeros(x.shape) if want else None for x, want in zip(given, wanted, strict=True)]
        to = _Call(grad_q, grad_k, grad_v, None, None, plan, learned)  # pyright: ignore[reportArgumentType]
        grad_shares = v.new_zeros(len(plan.logits))
        for cut in call.cuts():
            chunk = call.chunk(work, cut)
            logits = call.logits(chunk, cut)
            rows = [_by_key_head(cut.queries(x)) for x in (grad, lse)]
            values = cut.keys(v).flatten(0, 1)
            weights, back = SOFTMAX.backward(work, _by_key_head(logits), rows[1], values, rows[0], None, 0)
            cut.keys(grad_v).view(values.shape).baddbmm_(weights.mT, rows[0])
            own = plan.split([None if x is None else x[cut.heads] for x in learned])
            for number, (part, has, share) in enumerate(call.parts(cut)):
                into = to.chunk(work, cut)
                grad_shares[number] += part.backward(chunk, back.view(logits.shape), has, share, into, own[number])
        return grad_q, grad_k, grad_v, None if shares is None else grad_shares, None, None, *learned


def _by_key_head(x: Float[Tensor, "b g s q f"]) -> Float[Tensor, "m r f"]:
    """All queries of a key head side by side."""
    return x.flatten(2, 3).flatten(0, 1)


def _room(like: Tensor) -> Workspace:
    """The thread's workspace; one of its own where the computation is only traced."""
    make = Workspace if torch.compiler.is_compiling() else workspace
    return make(like.dtype, like.device)

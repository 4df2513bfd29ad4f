"""Attention with any score and any weights, in chunks of queries: no array of all pairs, forward or backward.

A score says how much a query asks for a key, a weighting what becomes of the scores of one query; each knows nothing
of the other. For some thousand queries at a time the scores are made in a workspace, turned into weights there, and
multiplied with the values; coming back they are made again. What is kept is queries, keys and values, and what the
weighting asks for: a number or two for each query.

Cost: O(n^2 f) time for `f` numbers a query; memory O(n f), and workspaces of a few MB.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from saccade.attention.backends._tiles import Workspace, workspace
from saccade.attention.mechanisms._query_chunks import hide_pairs, pairs_at_a_time, rows_at_a_time
from saccade.shapes import Bool, Float, Tensor


class Rounding(NamedTuple):
    """How far the computed score of a pair may be from the exact one: a number of its query times one of its key.

    One and the same pair gets scores that differ by as much, by its place in a matrix product.
    """

    queries: Float[Tensor, "m r 1"]
    keys: Float[Tensor, "m k 1"]


class PairScore(ABC):
    """The scores of prepared queries and keys."""

    @abstractmethod
    def scores(
        self,
        work: Workspace,
        q: Float[Tensor, "m h r f"],
        k: Float[Tensor, "m k f"],
        parameter: Float[Tensor, "m h f"] | None,
        unit: float,
    ) -> Float[Tensor, "m h r k"]:
        """Scores times `unit`, in the buffer `scores` of the workspace."""

    @abstractmethod
    def rounding(
        self,
        q: Float[Tensor, "m h r f"],
        k: Float[Tensor, "m k f"],
        parameter: Float[Tensor, "m h f"] | None,
        unit: float,
    ) -> tuple[Float[Tensor, "m h r 1"], Float[Tensor, "m k 1"]]:
        """How far these scores may be off, as a `Rounding`. Other queries and keys change nothing about a pair."""

    @abstractmethod
    def backward(
        self,
        work: Workspace,
        grad: Float[Tensor, "m h r k"],
        q: Float[Tensor, "m h r f"],
        k: Float[Tensor, "m k f"],
        parameter: Float[Tensor, "m h f"] | None,
        grad_k: Float[Tensor, "m k f"],
        grad_parameter: Float[Tensor, "m h f"] | None,
    ) -> Float[Tensor, "m h r f"]:
        """The gradient of the queries from that of the scores; those of keys and parameter are added to theirs."""


class Weighting(ABC):
    """What becomes of the scores of one query.

    Attributes:
        unit: factor on the scores that it is given.
        kept: numbers a query that it wants back in the backward pass.
        compares: whether it compares scores with each other, and so must know how far they may be off.
    """

    unit: ClassVar[float]
    kept: ClassVar[int]
    compares: ClassVar[bool] = False

    @abstractmethod
    def forward(
        self,
        work: Workspace,
        scores: Float[Tensor, "m r k"],
        v: Float[Tensor, "m k e"],
        visible: Float[Tensor, "m r 1"],
        rounding: Rounding | None,
        out: Float[Tensor, "m r e"],
    ) -> Float[Tensor, "m r s"]:
        """Fills `out`; what it wants back. Hidden pairs have score -inf. Spoils the scores.

        `visible` is how many keys each query sees; `rounding` is given where it `compares`.
        """

    @abstractmethod
    def backward(
        self,
        work: Workspace,
        scores: Float[Tensor, "m r k"],
        v: Float[Tensor, "m k e"],
        visible: Float[Tensor, "m r 1"],
        rounding: Rounding | None,
        grad: Float[Tensor, "m r e"],
        kept: Float[Tensor, "m r s"],
    ) -> tuple[Float[Tensor, "m r k"], Float[Tensor, "m r k"]]:
        """The weights, and the gradient of the scores as they are without `unit`. Spoils the scores."""


@dataclass(frozen=True)
class Plan:
    """What a call computes: which score, which weights, and who sees whom."""

    score: PairScore
    weighting: Weighting
    causal: bool
    q_start: int


def scored(
    q: Float[Tensor, "b h q f"],
    k: Float[Tensor, "b g k f"],
    v: Float[Tensor, "b g k e"],
    key_mask: Bool[Tensor, "b k"] | None,
    parameter: Float[Tensor, "h f"] | None,
    plan: Plan,
) -> Float[Tensor, "b h q e"]:
    """What each query takes from the values. Queries and keys are prepared; hidden keys and values are zero."""
    if 0 in (*q.shape, *k.shape, *v.shape):
        nothing = q[..., :0].sum() + k[..., :0].sum() + v[..., :0].sum()
        return nothing.expand(*q.shape[:3], v.shape[3])
    (b, h), g = q.shape[:2], k.shape[1]
    if parameter is not None:
        parameter = parameter.expand(b, h, -1).reshape(b * g, h // g, -1)
    real = None if key_mask is None else key_mask.repeat_interleave(g, 0)
    rows = q.reshape(b * g, h // g, *q.shape[2:])
    return _Scored.apply(rows, k.flatten(0, 1), v.flatten(0, 1), parameter, real, plan).view(*q.shape[:3], -1)


class _Cut(NamedTuple):
    """Some queries of some key heads, and the first keys, which are all that they see."""

    heads: slice
    rows: slice
    end: int

    def queries(self, x: Float[Tensor, "m h q f"]) -> Float[Tensor, "m2 h r f"]:
        """What belongs to the queries."""
        return x[self.heads, :, self.rows]

    def keys(self, x: Float[Tensor, "m k f"]) -> Float[Tensor, "m2 k2 f"]:
        """What belongs to the keys."""
        return x[self.heads, : self.end]

    def pairs(self, rounding: tuple[Float[Tensor, "m h q 1"], Float[Tensor, "m k 1"]] | None) -> Rounding | None:
        """What belongs to both."""
        return rounding and Rounding(self.queries(rounding[0]).flatten(1, 2), self.keys(rounding[1]))


def _cuts(q: Float[Tensor, "m h q f"], k: Float[Tensor, "m k f"], plan: Plan) -> Iterator[_Cut]:
    """All queries of all heads."""
    (m, group, n_q, _), n_k = q.shape, k.shape[1]
    pairs = pairs_at_a_time(q.device)
    rows = rows_at_a_time(n_q, n_k, group, plan.causal, pairs)
    heads = max(1, pairs // (group * rows * n_k))
    for head in range(0, m, heads):
        for row in range(0, n_q, rows):
            stop = min(row + rows, n_q)
            end = min(n_k, plan.q_start + stop) if plan.causal else n_k
            yield _Cut(slice(head, head + heads), slice(row, stop), end)


def _visible(
    q: Float[Tensor, "m h q f"], k: Float[Tensor, "m k f"], real: Bool[Tensor, "m k"] | None, plan: Plan
) -> Float[Tensor, "m 1 q 1"]:
    """How many keys each query sees."""
    (m, _, n_q, _), n_k = q.shape, k.shape[1]
    last = torch.full((n_q,), n_k, device=k.device)
    if plan.causal:
        last = torch.arange(plan.q_start + 1, plan.q_start + n_q + 1, device=k.device).clamp_(max=n_k)
    found = last.expand(m, -1) if real is None else real.cumsum(1)[:, last - 1]
    return found.to(q.dtype)[:, None, :, None]


class _Call(NamedTuple):
    """The inputs of one call and the workspace it computes in."""

    q: Tensor
    k: Tensor
    v: Tensor
    parameter: Tensor | None
    real: Tensor | None
    plan: Plan
    work: Workspace

    def scores(self, cut: _Cut) -> Float[Tensor, "m h r k"]:
        """Those of one cut, -inf where a pair is hidden."""
        plan = self.plan
        scores = plan.score.scores(
            self.work, cut.queries(self.q), cut.keys(self.k), self.parameters(cut), plan.weighting.unit
        )
        real = None if self.real is None else self.real[cut.heads, None, None, : cut.end]
        return hide_pairs(scores, real, plan.q_start + cut.rows.start if plan.causal else None)

    def rounding(self) -> tuple[Float[Tensor, "m h q 1"], Float[Tensor, "m k 1"]] | None:
        """How far all scores may be off, if it matters."""
        score, weighting = self.plan.score, self.plan.weighting
        return score.rounding(self.q, self.k, self.parameter, weighting.unit) if weighting.compares else None

    def parameters(self, cut: _Cut) -> Float[Tensor, "m h f"] | None:
        """Those of the heads of a cut."""
        return None if self.parameter is None else self.parameter[cut.heads]


class _Scored(torch.autograd.Function):
    """The same cuts forward and backward; scores are made twice and never kept."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, parameter: Tensor | None, real: Tensor | None, plan: Plan
    ) -> Tensor:
        call = _Call(q, k, v, parameter, real, plan, _room(q))
        out, kept = q.new_empty(*q.shape[:3], v.shape[2]), q.new_empty(*q.shape[:3], plan.weighting.kept)
        visible, rounding = _visible(q, k, real, plan), call.rounding()
        for cut in _cuts(q, k, plan):
            scores = call.scores(cut).flatten(1, 2)
            result = call.work.take("out", *scores.shape[:2], v.shape[2])
            counts = cut.queries(visible).expand(-1, q.shape[1], -1, -1).flatten(1, 2)
            back = plan.weighting.forward(call.work, scores, cut.keys(v), counts, cut.pairs(rounding), result)
            cut.queries(out).copy_(result.view_as(cut.queries(out)))
            cut.queries(kept).copy_(back.view_as(cut.queries(kept)))
        ctx.save_for_backward(q, k, v, parameter, real, kept)
        ctx.plan = plan
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, parameter, real, kept = ctx.saved_tensors
        plan, call = ctx.plan, _Call(q, k, v, parameter, real, ctx.plan, _room(q))
        grad_q, grad_k, grad_v = q.new_empty(q.shape), k.new_zeros(k.shape), v.new_zeros(v.shape)
        grad_parameter = None if parameter is None else torch.zeros_like(parameter)
        visible, rounding = _visible(q, k, real, plan), call.rounding()
        for cut in _cuts(q, k, plan):
            scores = call.scores(cut)
            given, back = (cut.queries(x).flatten(1, 2) for x in (grad, kept))
            counts = cut.queries(visible).expand(-1, q.shape[1], -1, -1).flatten(1, 2)
            weights, grad_scores = plan.weighting.backward(
                call.work, scores.flatten(1, 2), cut.keys(v), counts, cut.pairs(rounding), given, back
            )
            cut.keys(grad_v).baddbmm_(weights.mT, given)
            inputs = cut.queries(q), cut.keys(k), call.parameters(cut)
            own = None if grad_parameter is None else grad_parameter[cut.heads]
            to_scores = grad_scores.view_as(scores)
            cut.queries(grad_q).copy_(plan.score.backward(call.work, to_scores, *inputs, cut.keys(grad_k), own))
        return grad_q, grad_k, grad_v, grad_parameter, None, None


def _room(like: Tensor) -> Workspace:
    """The thread's workspace; one of its own where the computation is only traced."""
    make = Workspace if torch.compiler.is_compiling() else workspace
    return make(like.dtype, like.device)

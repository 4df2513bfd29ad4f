"""The scores of full attention: what is done to queries and keys by themselves, and which pair score follows.

Sources: scaled dot (Vaswani et al. 2017); dot (Luong et al. 2015); cosine with a temperature for each head, fixed or
learned ("Swin Transformer V2", Liu et al. 2022); additive (Bahdanau et al. 2015).

Cost: O(n d) for the cosine, O(n d f) for the additive score, before any pair is looked at.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from saccade.attention.mechanisms._full.pair_scores import DotProduct, TanhOfSum
from saccade.attention.mechanisms._full.scored_chunks import PairScore
from saccade.attention.states import state_dtype
from saccade.shapes import Float, Tensor

SHORTEST = 0.01
"""Temperatures are learned down to this, as in Swin V2."""


def directions(x: Float[Tensor, "b h n d"], length: Float[Tensor, " h"] | None = None) -> Float[Tensor, "b h n d"]:
    """Vectors of length 1, or of one positive length for each head. A zero vector has no direction: it stays zero."""
    return _Directions.apply(x, length)


class _Directions(torch.autograd.Function):
    """Keeps the result, which attention keeps as well, and one number for each vector."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, length: Tensor | None) -> Tensor:
        wide = x.to(state_dtype(x.dtype))
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        norm.masked_fill_(norm == 0, 1)
        factor = norm.reciprocal() if length is None else length.to(norm.dtype)[:, None, None] / norm
        out = (wide * factor).to(x.dtype)
        ctx.save_for_backward(out, factor, length)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        out, factor, length = ctx.saved_tensors
        wide, grad = out.to(factor.dtype), grad.to(factor.dtype)
        if length is None:
            along = (grad * wide).sum(-1, keepdim=True)
            return ((grad - wide * along) * factor).to(out.dtype), None
        unit = wide / length.to(factor.dtype)[:, None, None]
        along = (grad * unit).sum(-1, keepdim=True)
        return ((grad - unit * along) * factor).to(out.dtype), along.sum((0, 2, 3)).to(length.dtype)


class Score(nn.Module, ABC):
    """How much a query asks for a key: both are prepared by themselves, then each pair gets its score.

    Attributes:
        size: numbers in a prepared query or key.
    """

    size: int

    @abstractmethod
    def queries(self, q: Float[Tensor, "b h q d"]) -> Float[Tensor, "b h q f"]:
        """Prepared queries."""

    @abstractmethod
    def keys(self, k: Float[Tensor, "b g k d"]) -> Float[Tensor, "b g k f"]:
        """Prepared keys; a zero key stays zero."""

    @property
    @abstractmethod
    def pair(self) -> PairScore:
        """The score of prepared queries and keys."""

    @property
    def parameter(self) -> Float[Tensor, "h f"] | None:
        """What the pair score needs besides."""
        return None


class DotScore(Score):
    """q . k times a scale."""

    def __init__(self, head_dim: int, scale: float) -> None:
        super().__init__()
        self.size, self.scale = head_dim, scale

    def queries(self, q: Float[Tensor, "b h q d"]) -> Float[Tensor, "b h q d"]:
        """As they are."""
        return q

    def keys(self, k: Float[Tensor, "b g k d"]) -> Float[Tensor, "b g k d"]:
        """As they are."""
        return k

    @property
    def pair(self) -> DotProduct:
        """The dot product."""
        return DotProduct(self.scale)

    def extra_repr(self) -> str:
        """The scale."""
        return f"scale={self.scale:.4g}"


class CosineScore(DotScore):
    """cos(q, k) / temperature; a learned temperature is one for each head, and enters as the length of the queries."""

    def __init__(self, heads: int, head_dim: int, temperature: float, learned: bool) -> None:
        super().__init__(head_dim, 1.0 if learned else 1 / temperature)
        self.log_scale = nn.Parameter(torch.full((heads,), -math.log(temperature))) if learned else None

    def queries(self, q: Float[Tensor, "b h q d"]) -> Float[Tensor, "b h q d"]:
        """Their directions, as long as the inverse temperature says."""
        if self.log_scale is None:
            return directions(q)
        return directions(q, self.log_scale.clamp(max=-math.log(SHORTEST)).exp())

    def keys(self, k: Float[Tensor, "b g k d"]) -> Float[Tensor, "b g k d"]:
        """Their directions."""
        return directions(k)


class AdditiveScore(Score):
    """w . tanh(W q + U k) for each head; U belongs to the key head, so that a key is prepared once for all its queries.

    The paper begins with w = 0 and tiny W and U; here they begin Glorot-uniform, as all projections do.
    """

    def __init__(self, heads: int, kv_heads: int, head_dim: int, hidden: int) -> None:
        super().__init__()
        self.size = hidden
        self.query_weight = nn.Parameter(_glorot(heads, head_dim, hidden))
        self.key_weight = nn.Parameter(_glorot(kv_heads, head_dim, hidden))
        self.weight = nn.Parameter(_glorot(heads, hidden, 1)[..., 0])

    def queries(self, q: Float[Tensor, "b h q d"]) -> Float[Tensor, "b h q f"]:
        """W q."""
        return q @ self.query_weight.to(q.dtype)

    def keys(self, k: Float[Tensor, "b g k d"]) -> Float[Tensor, "b g k f"]:
        """U k."""
        return k @ self.key_weight.to(k.dtype)

    @property
    def pair(self) -> TanhOfSum:
        """The sum under the tanh."""
        return TanhOfSum()

    @property
    def parameter(self) -> Float[Tensor, "h f"]:
        """The paper's v."""
        return self.weight


def _glorot(heads: int, inputs: int, outputs: int) -> Float[Tensor, "h d f"]:
    """Uniform with the variance 2 / (inputs + outputs) (Glorot and Bengio 2010), head by head."""
    bound = math.sqrt(6 / (inputs + outputs))
    return torch.empty(heads, inputs, outputs).uniform_(-bound, bound)

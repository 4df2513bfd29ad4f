"""The layer and the cost shared by all mechanisms that are softmax attention under a pattern."""

from saccade.attention.dispatch import attend, computed
from saccade.attention.layout import layout
from saccade.attention.mechanism import AttentionLayer, Cost, check_sizes, kept_bytes, tensor_bytes
from saccade.attention.patterns import Pattern
from saccade.claims import Claims
from saccade.shapes import Bool, Float, Tensor

CLAIMS = Claims(causal=True, cross=True, any_length=True, any_mask=True, normalised=True, exact=True)
"""What softmax attention under any pattern promises."""


class PatternLayer(AttentionLayer):
    """Softmax attention under a pattern, or under its causal form.

    Attributes:
        pattern: who may look at whom, with the draws of this layer.
    """

    def __init__(self, pattern: Pattern) -> None:
        super().__init__()
        self.pattern = pattern
        self.causal_pattern = pattern.causal()

    def forward(
        self,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b g k d"],
        v: Float[Tensor, "b g k e"],
        key_mask: Bool[Tensor, "b k"] | None = None,
        causal: bool = False,
        q_start: int = 0,
    ) -> Float[Tensor, "b h q e"]:
        """`attend` under the pattern."""
        pattern = self.causal_pattern if causal else self.pattern
        return attend(q, k, v, pattern, key_mask=key_mask, q_start=q_start)

    def extra_repr(self) -> str:
        """The pattern."""
        return repr(self.pattern)


def pattern_cost(
    pattern: Pattern,
    n_q: int,
    n_k: int,
    heads: int,
    head_dim: int,
    kv_heads: int | None = None,
    value_dim: int | None = None,
) -> Cost:
    """Two products for each allowed pair: scores, and weighted values. Pairs are counted without an n * n array."""
    kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
    bound = pattern.bind(n_q, n_k, heads=heads)
    found = layout(bound)
    alike, per_pair = heads // found.heads, 2 * (head_dim + value_dim)
    visited, mask = computed(bound)
    sizes = n_q, n_k, heads, kv_heads, head_dim, value_dim
    return Cost(
        flops=per_pair * found.pairs * alike,
        pairs=found.pairs * alike,
        bytes=tensor_bytes(*sizes),
        wasted=per_pair * (visited - found.pairs) * alike,
        kept=kept_bytes(*sizes) + 4 * mask,
    )

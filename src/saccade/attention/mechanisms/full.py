"""Full softmax attention: every query looks at every key (Vaswani et al. 2017).

Cost: O(n^2 d) time; memory O(n d), as torch's fused kernel never stores the weights.
"""

from dataclasses import dataclass, replace

from saccade.attention.mechanism import Cost, Mechanism, check_sizes, kept_bytes, tensor_bytes
from saccade.attention.mechanisms._pattern_layer import PatternLayer, pattern_claims
from saccade.attention.patterns import Full
from saccade.claims import Claims


@dataclass(frozen=True, repr=False)
class FullAttention(Mechanism):
    """Scaled dot-product attention over all keys: the dense baseline.

    Formula:
        out = softmax(q kᵀ / √d) v

    Cost:
        O(n² d) time. O(n d) memory: torch's fused kernel never stores the weights. A decoding state holds all tokens.

    Use it:
        As the baseline that everything else is held against, and wherever inputs are short: at a few hundred
        tokens nothing here is much faster.

    Leave it:
        For long inputs: twice the length takes four times the operations. In the base model of the paper attention
        takes more than half of all operations from 3,073 tokens on.

    Source:
        "Attention Is All You Need" (Vaswani et al. 2017), section 3.2.1, as written. A query that sees no key gets
        zeros, of which the paper says nothing.
    """

    name = "full"

    @property
    def claims(self) -> Claims:
        """All that softmax attention under a pattern promises; and no key has a place."""
        return replace(pattern_claims(Full()), unordered=True)

    def build(
        self,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        layer: int = 0,
    ) -> PatternLayer:
        """A layer without parameters."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        return PatternLayer(Full(), kv_heads, head_dim, value_dim)

    def cost(
        self,
        n_q: int,
        n_k: int,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        causal: bool = False,
    ) -> Cost:
        """All pairs; causally, those up to each query."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        seen = min(n_q, n_k)
        pairs = heads * (seen * (seen + 1) // 2 + (n_q - seen) * n_k if causal else n_q * n_k)
        sizes = n_q, n_k, heads, kv_heads, head_dim, value_dim
        return Cost(2 * pairs * (head_dim + value_dim), pairs, tensor_bytes(*sizes), kept=kept_bytes(*sizes))

    def behind(self, tokens: int) -> "FullAttention":
        """Itself: all see all, those in front included."""
        return self

"""The layer and the cost shared by all mechanisms that are softmax attention under a pattern."""

import math

import torch

from saccade.attention.backends.dense import dense
from saccade.attention.dispatch import attend, computed
from saccade.attention.layout import layout
from saccade.attention.mechanism import AttentionLayer, Cost, check_sizes, kept_bytes, tensor_bytes
from saccade.attention.mechanisms._key_values import EVERYTHING, KeyValues, joined, kept, key_values
from saccade.attention.patterns import Full, Pattern, parse
from saccade.attention.record import Record
from saccade.attention.states import validate_initial, validate_prefill, validate_state, validate_step
from saccade.claims import Claims
from saccade.shapes import Bool, Float, Tensor


def pattern_claims(pattern: Pattern) -> Claims:
    """What softmax attention under a pattern promises: all, and a state of its window if its causal form has one.

    An exported graph holds a pattern as text, so one that carries a tensor cannot be in it.
    """
    keep = kept(pattern.causal())
    return Claims(
        causal=True,
        cross=True,
        any_length=True,
        any_mask=True,
        normalised=True,
        exact=True,
        streaming=True,
        exportable=_is_text(pattern),
        state_size="O(window)" if keep and keep.limit < math.inf else "O(n)",
    )


def _is_text(pattern: Pattern) -> bool:
    try:
        return parse(repr(pattern)) == pattern
    except ValueError:
        return False


class PatternLayer(AttentionLayer):
    """Softmax attention under a pattern, or under its causal form.

    A step is dense attention over the tokens that are kept: all of them, or the sinks and the window of a pattern
    that shows a query nothing else.

    Attributes:
        pattern: who may look at whom, with the draws of this layer.
    """

    def __init__(self, pattern: Pattern, kv_heads: int, head_dim: int, value_dim: int) -> None:
        super().__init__()
        self.pattern = pattern
        self.causal_pattern = pattern.causal()
        self.kv_heads, self.head_dim, self.value_dim = kv_heads, head_dim, value_dim
        keep = kept(self.causal_pattern)
        self._keep = keep or EVERYTHING
        self._sees_all_kept = keep is not None

    def forward(
        self,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b g k d"],
        v: Float[Tensor, "b g k e"],
        key_mask: Bool[Tensor, "b k"] | None = None,
        causal: bool = False,
        q_start: int = 0,
        record: Record | None = None,
        bias: Float[Tensor, "#b h #q #k"] | None = None,
    ) -> Float[Tensor, "b h q e"]:
        """`attend` under the pattern."""
        pattern = self.causal_pattern if causal else self.pattern
        return attend(q, k, v, pattern, key_mask=key_mask, q_start=q_start, bias=bias)

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> KeyValues:
        """No tokens yet."""
        dtype = validate_initial(batch, dtype)
        keys, values = (
            torch.zeros(batch, self.kv_heads, 0, dim, dtype=dtype, device=device)
            for dim in (self.head_dim, self.value_dim)
        )
        return KeyValues(keys, values, torch.ones(batch, 0, dtype=torch.bool, device=device))

    def prefill(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b g n d"],
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b h n e"], KeyValues]:
        """`attend` under the causal form, and the tokens to be kept."""
        validate_prefill(q, k, v, key_mask)
        out = self(q, k, v, key_mask, causal=True)
        return out, joined(self._keep, key_values(k, v, key_mask))

    def step(
        self,
        q: Float[Tensor, "b h 1 d"],
        k: Float[Tensor, "b g 1 d"],
        v: Float[Tensor, "b g 1 e"],
        state: KeyValues,
        key_mask: Bool[Tensor, "b 1"] | None = None,
    ) -> tuple[Float[Tensor, "b h 1 e"], KeyValues]:
        """Dense attention over the tokens that are kept."""
        validate_step(q, k, v, key_mask)
        (b, g, _, d), e = k.shape, v.shape[3]
        before = state.length if isinstance(state, KeyValues) else 0
        validate_state(state, KeyValues, ((b, g, before, d), (b, g, before, e), (b, before)), q)
        with torch.autocast(q.device.type, enabled=False):
            state = joined(self._keep, state, key_values(k, v, key_mask))
            pattern, position = (Full(), 0) if self._sees_all_kept else (self.causal_pattern, before)
            bound = pattern.bind(1, state.length, position, heads=q.shape[1])
            scale, (keys, values, mask) = 1 / math.sqrt(d), state
            out = dense(q.to(keys.dtype), keys, values, bound, key_mask=mask, scale=scale, bias=None, dropout=0.0)
        return out.to(q.dtype), state

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
    pairs, per_pair = layout(bound).pairs, 2 * (head_dim + value_dim)
    visited, mask = computed(bound)
    sizes = n_q, n_k, heads, kv_heads, head_dim, value_dim
    return Cost(
        flops=per_pair * pairs,
        pairs=pairs,
        bytes=tensor_bytes(*sizes),
        wasted=per_pair * (visited - pairs),
        kept=kept_bytes(*sizes) + 4 * mask,
    )

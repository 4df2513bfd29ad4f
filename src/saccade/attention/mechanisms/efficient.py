"""Efficient attention: two softmaxes in place of one, so that keys and values are summed once for all queries.

Source: "Efficient Attention: Attention with Linear Complexities" (Shen et al. 2018, arXiv 1812.01243): each feature of
the keys is a softmax over positions, a map of what it attends to, and each query a softmax over features.

Cost: O(n d e) time, O(n (d + e)) memory, causally O(n d (e + chunk)) (`_efficient`); a state is d * (e + 2) numbers
for each head.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from saccade.attention.backends._tiles import LOG2E
from saccade.attention.inputs import needed, validate
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, check_sizes, tensor_bytes
from saccade.attention.mechanisms._efficient.asked import asked
from saccade.attention.mechanisms._efficient.features import Running, lowest, shift_of, summed
from saccade.attention.mechanisms._efficient.running import chunk_of, running_softmax, whole
from saccade.attention.mechanisms._feature_map import ROWS
from saccade.attention.mechanisms._grouped_heads import for_queries
from saccade.attention.record import Record
from saccade.attention.states import state_dtype, validate_initial, validate_prefill, validate_state, validate_step
from saccade.claims import Claims
from saccade.shapes import Bool, Float, Tensor


class EfficientLayer(AttentionLayer):
    """Efficient attention; no parameters."""

    def __init__(self, kv_heads: int, head_dim: int, value_dim: int) -> None:
        super().__init__()
        self.kv_heads, self.head_dim, self.value_dim = kv_heads, head_dim, value_dim

    def forward(
        self,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b g k d"],
        v: Float[Tensor, "b g k e"],
        key_mask: Bool[Tensor, "b k"] | None = None,
        causal: bool = False,
        q_start: int = 0,
        record: Record | None = None,
    ) -> Float[Tensor, "b h q e"]:
        """Means of what the features attend to, in fp32 or better."""
        validate(q, k, v, key_mask, q_start)
        with torch.autocast(q.device.type, enabled=False):
            k, v = _hidden(k, v, needed(key_mask))
            wide = q.to(k.dtype)
            out = _causal(wide, k, v, q_start) if causal else _asked(wide, _summed(k, v))
            return out.to(q.dtype)

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Running:
        """Sums over nothing."""
        dtype = validate_initial(batch, dtype)
        shape = batch, self.kv_heads, self.head_dim
        z, s = (torch.zeros(*shape, dim, dtype=dtype, device=device) for dim in (1, self.value_dim))
        return Running(torch.full_like(z, lowest(dtype)), z, s)

    def prefill(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b g n d"],
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b h n e"], Running]:
        """The causal form, and the sums over all tokens."""
        validate_prefill(q, k, v, key_mask)
        out = self(q, k, v, key_mask, causal=True)
        with torch.autocast(q.device.type, enabled=False):
            return out, _summed(*_hidden(k, v, key_mask))

    def step(
        self,
        q: Float[Tensor, "b h 1 d"],
        k: Float[Tensor, "b g 1 d"],
        v: Float[Tensor, "b g 1 e"],
        state: Running,
        key_mask: Bool[Tensor, "b 1"] | None = None,
    ) -> tuple[Float[Tensor, "b h 1 e"], Running]:
        """Add the token to the sums, which sink where it is the new peak, and ask them."""
        validate_step(q, k, v, key_mask)
        (b, g, _, d), e = k.shape, v.shape[3]
        validate_state(state, Running, ((b, g, d, 1), (b, g, d, 1), (b, g, d, e)), q)
        with torch.autocast(q.device.type, enabled=False):
            state = _added(state, *_hidden(k, v, key_mask))
            return _asked(q.to(state.s.dtype), state).to(q.dtype), state


def _hidden(
    k: Float[Tensor, "b g k d"], v: Float[Tensor, "b g k e"], key_mask: Bool[Tensor, "b k"] | None
) -> tuple[Float[Tensor, "b g k d"], Float[Tensor, "b g k e"]]:
    """In fp32 or better, with what no softmax over positions sees at -inf."""
    k, v = (x.to(state_dtype(x.dtype)) for x in (k, v))
    if key_mask is None:
        return k, v
    hidden = ~key_mask[:, None, :, None]
    return k.masked_fill(hidden, -math.inf), v.masked_fill(hidden, 0)


def _summed(k: Float[Tensor, "b g k d"], v: Float[Tensor, "b g k e"]) -> Running:
    """The sums over all keys."""
    return Running(*(x.unflatten(0, k.shape[:2]) for x in summed(k.flatten(0, 1), v.flatten(0, 1))))


def _added(state: Running, k: Float[Tensor, "b g 1 d"], v: Float[Tensor, "b g 1 e"]) -> Running:
    """The sums with one more token."""
    peak = torch.maximum(state.peak, k.detach().mT)
    shift = shift_of(peak)
    fall = (shift - shift_of(state.peak)).exp2().mT
    power = torch.add(shift, k, alpha=LOG2E).exp2().mT
    return Running(peak, fall * state.z + power, fall * state.s + power * v)


def _asked(q: Float[Tensor, "b h q d"], sums: Running) -> Float[Tensor, "b h q e"]:
    """What the features of each query attend to, weighted; nothing where there are no keys."""
    return asked(q, sums.s / torch.where(sums.z > 0, sums.z, 1))


def _causal(
    q: Float[Tensor, "b h q d"], k: Float[Tensor, "b g k d"], v: Float[Tensor, "b g k e"], q_start: int
) -> Float[Tensor, "b h q e"]:
    """Queries with the keys up to their own positions. Keys before `q_start` enter as sums."""
    heads, end = q.shape[1], q_start + q.shape[2]
    if (missing := end - k.shape[2]) > 0:  # queries behind the last key see all keys
        k, v = pad(k, (0, 0, 0, missing), value=-math.inf), pad(v, (0, 0, 0, missing))
    earlier = _summed(k[:, :, :q_start], v[:, :, :q_start]) if q_start else None
    k, v = (x[:, :, q_start:end] for x in (k, v))
    if earlier is not None:
        earlier = Running(*(for_queries(x, heads).flatten(0, 1) for x in earlier))
    k, v = (for_queries(x, heads).flatten(0, 1) for x in (k, v))
    return running_softmax(q.flatten(0, 1), k, v, earlier).unflatten(0, q.shape[:2])


@dataclass(frozen=True, repr=False)
class EfficientAttention(Mechanism):
    """Two softmaxes in place of one: of queries over features, and of each feature of the keys over positions.

    Formula:
        out_i = ρ(q_i) C,   C_f = Σ_j exp(k_jf) v_j / Σ_j exp(k_jf),   ρ a softmax over the d features
        j runs over all keys; causally up to i, so that C becomes a recurrence, kept from overflow by the largest
        key so far of each feature. Weights Σ_f ρ(q_i)_f exp(k_jf) / Σ_l exp(k_lf) are positive and sum to 1.

    Cost:
        O(n d e) time and O(n (d + e)) memory, for keys of d and values of e numbers; causally also log₂ 64 + 3
        exponentials for each number of a key. A decoding state is d (e + 2) numbers for each head, whatever the
        length.

    Use it:
        For long inputs of which a query needs one of a few summaries: each feature attends to its own positions, and
        sharply if it likes, and a query chooses among features. In images and detection, where it comes from.

    Leave it:
        Where each query must find keys of its own: where a feature attends is the same for all queries, so that
        their weights have no more than d independent rows. Attention trained with one softmax does not carry over.

    Source:
        "Efficient Attention: Attention with Linear Complexities" (Shen et al. 2018, WACV 2021), with softmax
        normalisation; as in its authors' code nothing is divided by √d. It is for images and knows no padding, which
        here stays out of the softmax over positions, and no order: the causal form is a running softmax, over the
        positions up to each query's own, and another operator. A query that sees no key gets zeros.
    """

    name = "efficient"
    family = "reordered products"

    @property
    def claims(self) -> Claims:
        """Everything but equality with a softmax."""
        return Claims(
            causal=True,
            cross=True,
            any_length=True,
            any_mask=True,
            normalised=True,
            unordered=True,
            streaming=True,
            exportable=True,
            state_size="O(1)",
        )

    def build(
        self,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        layer: int = 0,
    ) -> EfficientLayer:
        """A layer without parameters."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        return EfficientLayer(kv_heads, head_dim, value_dim)

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
        """Keys times values, queries times their means; causally also the pairs within chunks."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        sizes = n_q, n_k, heads, kv_heads, head_dim, value_dim
        moved, inputs = tensor_bytes(*sizes), n_q * heads * head_dim + n_k * kv_heads * (head_dim + value_dim)
        if not causal:
            flops = 2 * (kv_heads * n_k + heads * n_q) * head_dim * value_dim
            kept = 4 * inputs + kv_heads * head_dim * (8 * value_dim + 5)  # means, sums, and which there are
            return Cost(flops, 0, moved, kept=kept)
        n, chunk, cuts = whole(n_q), chunk_of(n_q), -(-n_q // ROWS)
        pairs, states = heads * n * chunk, head_dim * (value_dim + 2)
        flops = 2 * (pairs * value_dim + heads * n * (chunk - 1) // 2 * head_dim + 2 * heads * n * head_dim * value_dim)
        kept = 4 * heads * (n * (2 * head_dim + value_dim) + cuts * states)
        return Cost(flops, pairs, moved + 8 * heads * n // chunk * states, kept=kept)

    def behind(self, tokens: int) -> "EfficientAttention":
        """Itself: all see all, those in front included."""
        return self

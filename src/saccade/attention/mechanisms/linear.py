"""Linear attention: the softmax replaced by a product of features, so that keys and values are summed once.

Source: "Transformers are RNNs" (Katharopoulos et al. 2020): weights phi(q) . phi(k) with phi(x) = elu(x) + 1, no
scale, each row divided by its sum. Causally it is a recurrence with state S = sum phi(k) v^T and z = sum phi(k);
here it is computed in chunks: within a chunk pair by pair, before it through the state.

Cost: O(n d e) time, O(n (d + e)) memory; causal: n / chunk further states of d * e numbers.
"""

from dataclasses import dataclass

import torch
from einops import rearrange, reduce, repeat
from torch.nn.functional import pad

from saccade.attention.inputs import hide, validate
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, check_sizes, tensor_bytes
from saccade.claims import Claims
from saccade.shapes import Bool, Float, Tensor

CHUNK = 128
"""Positions computed pair by pair in the causal form: 64 to 128 is fastest (docs/log.md)."""


def features(x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """phi(x) = elu(x) + 1, positive everywhere; written so that nothing is lost where exp(x) is far below 1."""
    return x.clamp(max=0).exp() + x.clamp(min=0)


def linear_attention(
    q: Float[Tensor, "b h q f"],
    k: Float[Tensor, "b h k f"],
    v: Float[Tensor, "b h k e"],
) -> Float[Tensor, "b h q e"]:
    """Every query with the sums over all keys. Takes features, not queries and keys."""
    return _divide(q @ (k.mT @ v), q @ k.sum(2, keepdim=True).mT)


def causal_linear_attention(
    q: Float[Tensor, "b h q f"],
    k: Float[Tensor, "b h k f"],
    v: Float[Tensor, "b h k e"],
    q_start: int = 0,
) -> Float[Tensor, "b h q e"]:
    """Every query with the sums over the keys up to its own position. Takes features, not queries and keys.

    Keys before `q_start` enter as one state; the rest goes in chunks.
    """
    n_q = q.shape[2]
    earlier_k, earlier_v = k[:, :, :q_start], v[:, :, :q_start]
    own = slice(q_start, q_start + n_q)
    k, v = (pad(x[:, :, own], (0, 0, 0, max(0, n_q - x[:, :, own].shape[2]))) for x in (k, v))
    fill = (0, 0, 0, -n_q % CHUNK)
    q, k, v = (rearrange(pad(x, fill), "b h (m c) f -> b h m c f", c=CHUNK) for x in (q, k, v))
    start_s = (earlier_k.mT @ earlier_v)[:, :, None]
    start_z = reduce(earlier_k, "b h k f -> b h 1 f 1", "sum")
    s = _before(k.mT @ v) + start_s
    z = _before(reduce(k, "b h m c f -> b h m f 1", "sum")) + start_z
    weights = (q @ k.mT).tril()
    out = _divide(weights @ v + q @ s, weights.sum(-1, keepdim=True) + q @ z)
    return rearrange(out, "b h m c e -> b h (m c) e")[:, :, :n_q]


def _before(states: Float[Tensor, "b h m f e"]) -> Float[Tensor, "b h m f e"]:
    """For each chunk, the sum over the chunks before it."""
    return pad(states.cumsum(2)[:, :, :-1], (0, 0, 0, 0, 1, 0))


def _divide(total: Float[Tensor, "*n e"], weight: Float[Tensor, "*n 1"]) -> Float[Tensor, "*n e"]:
    """The weighted mean; zeros where no weight is."""
    return total / weight.masked_fill(weight == 0, 1)


class LinearLayer(AttentionLayer):
    """Linear attention; no parameters."""

    def forward(
        self,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b g k d"],
        v: Float[Tensor, "b g k e"],
        key_mask: Bool[Tensor, "b k"] | None = None,
        causal: bool = False,
        q_start: int = 0,
    ) -> Float[Tensor, "b h q e"]:
        """Weighted means with weights phi(q) . phi(k), in fp32 or better."""
        validate(q, k, v, key_mask, q_start)
        wide = torch.promote_types(q.dtype, torch.float32)
        group = q.shape[1] // k.shape[1]
        with torch.autocast(q.device.type, enabled=False):
            k, v = hide(k, v, key_mask)
            phi_q, phi_k, v = features(q.to(wide)), features(k.to(wide)), v.to(wide)
            if key_mask is not None:
                phi_k = phi_k * key_mask[:, None, :, None]
            phi_k, v = (repeat(x, "b g k f -> b (g group) k f", group=group) for x in (phi_k, v))
            if causal:
                return causal_linear_attention(phi_q, phi_k, v, q_start).to(q.dtype)
            return linear_attention(phi_q, phi_k, v).to(q.dtype)


@dataclass(frozen=True, repr=False)
class LinearAttention(Mechanism):
    """Weights phi(q) . phi(k) with phi = elu + 1."""

    name = "linear"

    @property
    def claims(self) -> Claims:
        """Everything but equality with a softmax."""
        return Claims(causal=True, cross=True, any_length=True, any_mask=True, normalised=True, unordered=True)

    def build(
        self,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        layer: int = 0,
    ) -> LinearLayer:
        """A layer without parameters."""
        check_sizes(heads, head_dim, kv_heads, value_dim)
        return LinearLayer()

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
        """Keys times values, queries times their sum; causally also the pairs within chunks."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        moved = tensor_bytes(n_q, n_k, heads, kv_heads, head_dim, value_dim)
        if not causal:
            flops = 2 * heads * (n_q + n_k) * head_dim * (value_dim + 1)
            return Cost(flops, 0, moved)
        chunks = -(-n_q // CHUNK)
        pairs = heads * chunks * CHUNK**2
        products = pairs * (head_dim + value_dim) + heads * chunks * CHUNK * head_dim * (2 * value_dim + 1)
        states = 4 * heads * chunks * head_dim * (value_dim + 1)
        return Cost(2 * products, pairs, moved + states)

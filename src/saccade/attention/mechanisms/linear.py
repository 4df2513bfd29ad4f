"""Linear attention: the softmax replaced by a product of features, so that keys and values are summed once.

Source: "Transformers are RNNs" (Katharopoulos et al. 2020): weights phi(q) . phi(k) with phi(x) = elu(x) + 1, no
scale, each row divided by its sum. Causally it is a recurrence with state S = sum phi(k) v^T and z = sum phi(k).
Other feature maps, and where they come from: `_linear/maps.py`.

Cost: O(n f e) time, O(n (d + e)) memory (`_feature_map.py`); a state is f * (e + 1) numbers for each head. `f`
features, d of them by default.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import pad

from saccade.attention.inputs import hide, needed, validate, validate_built
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, check_sizes, kept_bytes, tensor_bytes
from saccade.attention.mechanisms._causal_features import causal_by_features
from saccade.attention.mechanisms._feature_map import CHUNK, ROWS, FeatureMap, Sums, sums_of
from saccade.attention.mechanisms._grouped_heads import ask, for_queries, real_keys, sum_keys
from saccade.attention.mechanisms._linear.maps import MAPS, POSITIVE, Dpfp
from saccade.attention.record import Record
from saccade.attention.states import state_dtype, validate_initial, validate_prefill, validate_state, validate_step
from saccade.claims import Claims
from saccade.errors import must_be, unknown, whole_number
from saccade.shapes import Bool, Float, Tensor


class LinearLayer(AttentionLayer):
    """Linear attention.

    Attributes:
        Wq: what queries of each head are multiplied with before their features are made, if the map is learned.
        Wk: the same for keys.
    """

    def __init__(self, spec: "LinearAttention", heads: int, kv_heads: int, head_dim: int, value_dim: int) -> None:
        super().__init__()
        self.spec, self.kv_heads, self.value_dim = spec, kv_heads, value_dim
        self.phi = spec.map()
        self.features = self.phi.size(head_dim)
        self.Wq = nn.Parameter(torch.eye(head_dim).repeat(heads, 1, 1)) if spec.learned else None
        self.Wk = nn.Parameter(torch.eye(head_dim).repeat(kv_heads, 1, 1)) if spec.learned else None

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
        """Weighted means with weights phi(q) . phi(k), in fp32 or better."""
        validate(q, k, v, key_mask, q_start)
        if self.Wq is not None:
            self._validate_built(q, k)
        key_mask = needed(key_mask)
        with torch.autocast(q.device.type, enabled=False):
            k, v = self._keys(k, v, key_mask)
            if not causal:
                out = self._ask(q, sum_keys(k, v, key_mask, self.phi))
            else:
                out = _causal(self._queries(q), k, v, key_mask, q_start, self.phi, self._least(k.dtype))
            return out.to(q.dtype)

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Sums:
        """Sums over nothing."""
        shape, dtype = (batch, self.kv_heads, self.features), validate_initial(batch, dtype)
        s, z = (torch.zeros(*shape, dim, dtype=dtype, device=device) for dim in (self.value_dim, 1))
        return Sums(s, z)

    def prefill(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b g n d"],
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b h n e"], Sums]:
        """The causal form, and the sums over all tokens."""
        validate_prefill(q, k, v, key_mask)
        out = self(q, k, v, key_mask, causal=True)
        with torch.autocast(q.device.type, enabled=False):
            return out, self._state(k, v, key_mask)

    def step(
        self,
        q: Float[Tensor, "b h 1 d"],
        k: Float[Tensor, "b g 1 d"],
        v: Float[Tensor, "b g 1 e"],
        state: Sums,
        key_mask: Bool[Tensor, "b 1"] | None = None,
    ) -> tuple[Float[Tensor, "b h 1 e"], Sums]:
        """Add the token to the sums and ask them."""
        validate_step(q, k, v, key_mask)
        (b, g, _, _), f, e = k.shape, self.features, v.shape[3]
        validate_state(state, Sums, ((b, g, f, e), (b, g, f, 1)), q)
        with torch.autocast(q.device.type, enabled=False):
            state = Sums(*(old + new for old, new in zip(state, self._state(k, v, key_mask), strict=True)))
            return self._ask(q, state).to(q.dtype), state

    def extra_repr(self) -> str:
        """The spec."""
        return repr(self.spec)

    def _validate_built(self, q: Tensor, k: Tensor) -> None:
        for name, x, weight in (("q", q, self.Wq), ("k", k, self.Wk)):
            if weight is not None:
                validate_built(name, x, *weight.shape[:2])

    def _least(self, dtype: torch.dtype) -> float:
        """What sums of weights divide by at least, where they may vanish: else their gradients would overflow."""
        return 0.0 if self.spec.feature in POSITIVE else torch.finfo(dtype).tiny ** 0.75

    def _ask(self, q: Float[Tensor, "b h q d"], sums: Sums) -> Float[Tensor, "b h q e"]:
        return ask(self._queries(q), sums, self.phi, self._least(sums.s.dtype))

    def _queries(self, q: Float[Tensor, "b h q d"]) -> Float[Tensor, "b h q d"]:
        """What features are made of, in fp32 or better."""
        q = q.to(state_dtype(q.dtype))
        return q if self.Wq is None else q @ self.Wq.to(q.dtype)

    def _keys(
        self, k: Float[Tensor, "b g k d"], v: Float[Tensor, "b g k e"], key_mask: Bool[Tensor, "b k"] | None
    ) -> tuple[Float[Tensor, "b g k d"], Float[Tensor, "b g k e"]]:
        """What features are made of, and values; zero where hidden."""
        wide = state_dtype(k.dtype)
        k, v = hide(k.to(wide), v.to(wide), key_mask)
        return (k if self.Wk is None else k @ self.Wk.to(wide)), v

    def _state(
        self, k: Float[Tensor, "b g k d"], v: Float[Tensor, "b g k e"], key_mask: Bool[Tensor, "b k"] | None
    ) -> Sums:
        """The sums over some tokens."""
        return sum_keys(*self._keys(k, v, key_mask), key_mask, self.phi)


def _causal(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    key_mask: Bool[Tensor, "b k"] | None,
    q_start: int,
    phi: FeatureMap,
    least: float,
) -> Float[Tensor, "b h q e"]:
    """Queries with the keys up to their own positions. Keys before `q_start` enter as sums."""
    heads, end = q.shape[1], q_start + q.shape[2]
    if (missing := end - k.shape[2]) > 0:  # queries behind the last key see all keys
        key_mask = k.new_ones(k.shape[0], k.shape[2], dtype=torch.bool) if key_mask is None else key_mask
        k, v, key_mask = pad(k, (0, 0, 0, missing)), pad(v, (0, 0, 0, missing)), pad(key_mask, (0, missing))
    k, v = (for_queries(x, heads) for x in (k, v))
    real, k, v = real_keys(key_mask, k), _flat(k), _flat(v)
    earlier = None
    if q_start:
        before = None if real is None else real[:, :q_start]
        earlier = sums_of(k[:, :q_start], v[:, :q_start], before, phi)
    real = None if real is None else real[:, q_start:end]
    out = causal_by_features(_flat(q), k[:, q_start:end], v[:, q_start:end], real, earlier, (phi, phi), least)
    return out.unflatten(0, q.shape[:2])


def _flat(x: Float[Tensor, "b h n d"]) -> Float[Tensor, "m n d"]:
    """The heads of all examples one after the other."""
    return x.flatten(0, 1)


@dataclass(frozen=True, repr=False)
class LinearAttention(Mechanism):
    """A product of features in place of the softmax, so that keys and values are summed once for all queries.

    Formula:
        out_i = φ(q_i) S / (φ(q_i) · z),   S = Σ_j φ(k_j) v_jᵀ,   z = Σ_j φ(k_j)
        j runs over all keys; causally up to i, so that S and z become a recurrence. φ makes f features of d numbers:
        elu       elu(x) + 1                                                        f = d
        relu      max(x, 0)                                                         f = d
        dpfp      r_i r_(i-m) for m up to ν, r = max([x, -x], 0), cyclic            f = 2 d ν
        taylor    1, x, all products of two, of x / d^¼: weights 1 + s + s²/2       f = 1 + d + d (d + 1) / 2
                  near exp(s), with s = q · k / √d
        hedgehog  [softmax(x W), softmax(-x W)] over features, W learned            f = 2 d

    Cost:
        O(n f e) time and O(n (d + e)) memory, for keys of d and values of e numbers. A decoding state is f (e + 1)
        numbers for each head, whatever the length. `taylor` has 2,145 features at d = 64 and only pays for small
        keys (Based uses d = 16: 153 features).

    Use it:
        For very long inputs and for generation: the state never grows, and a step takes the same time after 4,096
        tokens as after 256. On two CPU cores it was 29 times as fast as full attention at 4,096
        tokens and 74 times at 16,384; its causal form 12 and 39 times as fast as full attention over all keys.
        `taylor` and `hedgehog` come nearest to a softmax, also to one that was trained as such.

    Leave it:
        Where a query must pick out a few keys: φ is flat by default, so weights are spread over many keys and never
        sharp, and their matrix has no more than f independent rows. With `elu`, attention trained with a softmax
        does not carry over. With `relu` and `dpfp` a query none of whose features is any key's gets zeros.

    Source:
        "Transformers are RNNs" (Katharopoulos et al. 2020). As in the paper, scores are not divided by √d. Its code
        adds a small constant to the denominator; here nothing is added, and a query that sees no key gets zeros.
        `relu`: Kasai et al. 2021, without their learned projection. `dpfp`: Schlag et al. 2021. `taylor`: Keles et al.
        2022, Based (Arora et al. 2024). `hedgehog`: Zhang et al. 2024, with one W for each query head and one for
        each key head that begin as the identity, no bias, and features that are not kept above a least size as in
        their code; their distillation is left to the user.

    Attributes:
        feature: the map φ: `elu`, `relu`, `dpfp`, `taylor` or `hedgehog`.
        nu: how far `dpfp` moves; other maps have no use for it.
    """

    name = "linear"
    family = "reordered products"
    feature: Literal["elu", "relu", "dpfp", "taylor", "hedgehog"] = "elu"
    nu: int = 1

    def __post_init__(self) -> None:
        """Refuse what is no feature map."""
        if not isinstance(self.feature, str) or self.feature not in MAPS:
            raise ValueError(unknown("feature", self.feature, MAPS))
        whole_number("nu", self.nu)
        if self.nu > 1 and self.feature != "dpfp":
            raise ValueError(must_be("nu", f"1 where feature={self.feature!r}, as only dpfp moves", self.nu))

    @property
    def claims(self) -> Claims:
        """Everything but equality with a softmax; where all weights may be 0, they do not sum to 1."""
        return Claims(
            causal=True,
            cross=True,
            any_length=True,
            any_mask=True,
            normalised=self.feature in POSITIVE,
            unordered=True,
            streaming=True,
            exportable=True,
            state_size="O(1)",
        )

    @property
    def learned(self) -> bool:
        """Whether its layers have parameters."""
        return self.feature == "hedgehog"

    def map(self) -> FeatureMap:
        """The map of queries and keys."""
        return Dpfp(self.nu) if self.feature == "dpfp" else MAPS[self.feature]()

    def build(
        self,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        layer: int = 0,
    ) -> LinearLayer:
        """A layer; without parameters, but for `hedgehog`.

        Raises:
            ValueError: sizes that no layer has, or keys that are too short for `nu`.
        """
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        if self.nu >= 2 * head_dim:
            raise ValueError(must_be("nu", f"less than twice the head dim, {2 * head_dim}", self.nu))
        return LinearLayer(self, heads, kv_heads, head_dim, value_dim)

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
        sizes = n_q, n_k, heads, kv_heads, head_dim, value_dim
        features, projected = self.map().size(head_dim), 0
        if self.learned:  # what is projected is kept, and so is what comes out
            projected = (heads * n_q + kv_heads * n_k) * head_dim
        moved, sums = tensor_bytes(*sizes), features * (value_dim + 1)
        flops, also_kept = 2 * projected * head_dim, 4 * projected
        if not causal:
            flops += 2 * (kv_heads * n_k * features * value_dim + heads * n_q * sums)
            return Cost(flops, 0, moved, kept=kept_bytes(*sizes) + 4 * kv_heads * sums + also_kept)
        chunk = min(CHUNK, n_q)
        chunks, cuts = -(-n_q // chunk), -(-n_q // ROWS)
        n, pairs = chunks * chunk, heads * chunks * chunk**2
        flops += 2 * (pairs * (features + value_dim) + heads * n * (features * value_dim + sums))
        kept = kept_bytes(n, n, heads, heads, head_dim, value_dim) + 4 * heads * cuts * sums + also_kept
        return Cost(flops, pairs, moved + 8 * heads * chunks * sums, kept=kept)

    def behind(self, tokens: int) -> "LinearAttention":
        """Itself: all see all, those in front included."""
        return self

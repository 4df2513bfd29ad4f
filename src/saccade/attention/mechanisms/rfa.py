"""Random Feature Attention: the softmax of unit vectors, estimated by random sines and cosines; with a gate, a memory.

Source: "Random Feature Attention" (Peng et al. 2021, arXiv 2103.02143). How it is computed is in `_rfa`.

Cost: O(n f (d + e)) time, O(n (d + e)) memory; a state is f (e + 1) numbers for each head. `f` features.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from saccade.attention.inputs import hide, needed, validate, validate_built
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, check_sizes
from saccade.attention.mechanisms._feature_map import FeatureMap, Sums
from saccade.attention.mechanisms._grouped_heads import ask
from saccade.attention.mechanisms._rfa.costs import Sizes, of_all_keys, of_earlier_keys
from saccade.attention.mechanisms._rfa.draws import chosen, drawn
from saccade.attention.mechanisms._rfa.features import KERNELS, directions_of
from saccade.attention.mechanisms._rfa.gates import fades
from saccade.attention.mechanisms._rfa.tokens import Tokens, causal, summed
from saccade.attention.mechanisms._rfa.units import scaled_units
from saccade.attention.record import Record
from saccade.attention.states import state_dtype, validate_initial, validate_prefill, validate_state, validate_step
from saccade.claims import Claims
from saccade.errors import must_be, unknown, whole_number
from saccade.shapes import Bool, Float, Int, Tensor


class RfaLayer(AttentionLayer):
    """Attention by random features.

    Attributes:
        spec: the options.
        sigma: the learned scale of each dim of unit vectors, `[g d]`.
        directions: the first draw of each key head, which evaluation uses, `[g f d]`; a buffer, kept in checkpoints.
        in_training: the draw that training uses until the next `after_step`; a buffer where there are several.
        steps: how many `after_step` there were; a buffer like that.
    """

    directions: Float[Tensor, "g f d"]
    in_training: Float[Tensor, "g f d"]
    steps: Int[Tensor, ""]

    def __init__(
        self, spec: "RfaAttention", heads: int, head_dim: int, kv_heads: int, value_dim: int, layer: int
    ) -> None:
        super().__init__()
        self.spec, self.layer = spec, layer
        self.heads, self.head_dim, self.kv_heads, self.value_dim = heads, head_dim, kv_heads, value_dim
        self.sigma = nn.Parameter(torch.ones(kv_heads, head_dim))
        first = self._drawn([0] * kv_heads).to(torch.get_default_device(), torch.get_default_dtype())
        self.register_buffer("directions", first)
        if spec.pool > 1:
            self.register_buffer("in_training", first.clone())
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b g k d"],
        v: Float[Tensor, "b g k e"],
        key_mask: Bool[Tensor, "b k"] | None = None,
        causal: bool = False,
        q_start: int = 0,
        record: Record | None = None,
        *,
        gate: Float[Tensor, "b g k 1"] | None = None,
    ) -> Float[Tensor, "b h q e"]:
        """Means weighted by phi(q) . phi(k), in fp32 or better; with gates, of what they have left.

        Where the spec has gates, `gate` is their logits: of what lies behind it, a token keeps the sigmoid of its own.

        Raises:
            ValueError: as every attention call, gates of another shape, or gates without `causal`.
            TypeError: as every attention call, or no gates where the spec has them.
        """
        validate(q, k, v, key_mask, q_start)
        self._refuse(q, k, v, gate)
        self.spec.refuse(causal)
        with torch.autocast(q.device.type, enabled=False):
            return self._attended(q, k, v, gate, needed(key_mask), causal, q_start).to(q.dtype)

    def _attended(
        self, q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, key_mask: Tensor | None, is_causal: bool, start: int
    ) -> Float[Tensor, "b h q e"]:
        tokens, asking = self._tokens(k, v, gate, key_mask), self._scaled(q)
        phi = self._phi(asking, self.heads if is_causal else self.kv_heads)
        if is_causal:
            return causal(asking, tokens, start, phi, self._least)
        return ask(asking, summed(tokens, phi), phi, self._least)

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Sums:
        """Sums over nothing."""
        dtype = validate_initial(batch, dtype)
        shapes = ((batch, self.kv_heads, self.spec.features, dim) for dim in (self.value_dim, 1))
        return Sums(*(torch.zeros(shape, dtype=dtype, device=device) for shape in shapes))

    def prefill(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b g n d"],
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
        *,
        gate: Float[Tensor, "b g n 1"] | None = None,
    ) -> tuple[Float[Tensor, "b h n e"], Sums]:
        """The causal form, and the sums behind all tokens."""
        validate_prefill(q, k, v, key_mask)
        out = self(q, k, v, key_mask, causal=True, gate=gate)
        with torch.autocast(q.device.type, enabled=False):
            tokens = self._tokens(k, v, gate, key_mask)
            return out, summed(tokens, self._phi(tokens.k, self.kv_heads))

    def step(
        self,
        q: Float[Tensor, "b h 1 d"],
        k: Float[Tensor, "b g 1 d"],
        v: Float[Tensor, "b g 1 e"],
        state: Sums,
        key_mask: Bool[Tensor, "b 1"] | None = None,
        *,
        gate: Float[Tensor, "b g 1 1"] | None = None,
    ) -> tuple[Float[Tensor, "b h 1 e"], Sums]:
        """Add the token to the sums, of which its gate keeps a part, and ask them."""
        validate_step(q, k, v, key_mask)
        self._refuse(q, k, v, gate)
        sizes = len(q), self.kv_heads, self.spec.features
        validate_state(state, Sums, ((*sizes, self.value_dim), (*sizes, 1)), q)
        with torch.autocast(q.device.type, enabled=False):
            tokens = self._tokens(k, v, gate, key_mask)
            new = summed(tokens, phi := self._phi(tokens.k, self.kv_heads))
            if tokens.fades is not None:
                keep = tokens.fades.keep.exp2().to(new.s.dtype)
                state = Sums(*(each * keep for each in state))
            state = Sums(*(old + added for old, added in zip(state, new, strict=True)))
            return ask(self._scaled(q), state, phi, self._least).to(q.dtype), state

    @torch.no_grad()
    def after_step(self) -> None:
        """Let each head draw anew from its pool; nothing in evaluation."""
        if self.training and self.spec.pool > 1:
            self.steps.add_(1)
            draws = chosen(self.spec.seed, self.layer, self.kv_heads, int(self.steps), self.spec.pool)
            self.in_training.copy_(self._drawn(draws))

    def _drawn(self, draws: list[int]) -> Float[Tensor, "g f d"]:
        directions = directions_of(self.spec.kernel, self.spec.features)
        return drawn(self.spec.seed, self.layer, draws, directions, self.head_dim)

    def _phi(self, x: Float[Tensor, "b h n d"], heads: int) -> FeatureMap:
        """The features of so many heads of all examples."""
        directions = self.in_training if self.training and self.spec.pool > 1 else self.directions
        directions = directions.to(x.dtype).repeat_interleave(heads // self.kv_heads, 0)
        return KERNELS[self.spec.kernel](directions.repeat(x.shape[0], 1, 1))

    def _scaled(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        """Units, each head scaled by the sigma of its key head."""
        grouped = x.to(state_dtype(x.dtype)).unflatten(1, (self.kv_heads, -1)).flatten(2, 3)
        return scaled_units(grouped, self.sigma, float(self.spec.temperature)).view(x.shape)

    def _tokens(self, k: Tensor, v: Tensor, gate: Tensor | None, key_mask: Tensor | None) -> Tokens:
        wide = state_dtype(k.dtype)
        k, v = hide(k.to(wide), v.to(wide), key_mask)
        gates = fades(gate, key_mask) if self.spec.gate and gate is not None else None
        return Tokens(self._scaled(k), v, key_mask, gates)

    @property
    def _least(self) -> float:
        """The paper's features have a factor that ours leave out."""
        return float(self.spec.least_weight) * directions_of(self.spec.kernel, self.spec.features)

    def _refuse(self, q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None) -> None:
        for name, tensor, heads, dim in (
            ("q", q, self.heads, self.head_dim),
            ("k", k, self.kv_heads, self.head_dim),
            ("v", v, self.kv_heads, self.value_dim),
        ):
            validate_built(name, tensor, heads, dim)
        if not self.spec.gate:
            return
        if not isinstance(gate, Tensor):
            raise TypeError(
                must_be("gate", "a tensor [b g k 1] of logits, one for each key and head", type(gate).__name__)
            )
        if gate.shape != (*k.shape[:3], 1) or gate.dtype != k.dtype or gate.device != k.device:
            got = f"{tuple(gate.shape)} of {gate.dtype} on {gate.device}"
            raise ValueError(must_be("gate", f"of shape {(*k.shape[:3], 1)}, {k.dtype} on {k.device}", got))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RfaLayer":
        """As every module, but directions stay in fp32 at least: rounded ones are others."""
        wide = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in self.named_buffers():
            if buffer.is_floating_point() and buffer.dtype != (dtype := state_dtype(buffer.dtype)):
                setattr(self, name, wide[name].to(buffer.device, dtype))
        return self

    def extra_repr(self) -> str:
        """The options."""
        return repr(self.spec)


@dataclass(frozen=True, repr=False)
class RfaAttention(Mechanism):
    """Softmax attention of unit vectors, estimated by random sines and cosines; with a gate, a memory that fades.

    Formula:
        out_i = φ(q_i) S / max(|φ(q_i) · z|, least_weight),   S = Σ_j φ(k_j) v_jᵀ,   z = Σ_j φ(k_j)
        φ(x) = [sin(W x̂), cos(W x̂)] / √D,   x̂ = x / |x|,   W = W₀ σ / temperature
        W₀ has D = features / 2 standard normal rows, σ is learned for each dim. In the mean over W₀, φ(q) · φ(k) is
        exp(-|σ(q̂ - k̂)|² / (2 temperature²)): at first exp(q̂ · k̂ / temperature²), but for a factor that cancels.
        j runs over all keys; causally up to i. With gates g_i, causally only:
        S_i = g_i S_(i-1) + (1 - g_i) φ(k_i) v_iᵀ, and z_i alike; g is the sigmoid of a projection of the token.

    Cost:
        O(n f (d + e)) time for f features, O(n (d + e)) memory. A decoding state is f (e + 1) numbers for each head,
        whatever the length.

    Use it:
        For long inputs, where linear attention's own features are too flat: weights stay below 1 however many features
        there are, and sums do not overflow. With `gate` for generation, where what is near matters most: each head
        learns how fast it forgets. At 4,096 tokens on a CPU core it was 5.2 times as fast as full attention forward
        and 6.4 times forward and backward; causally 3.4 and 3.6 times as fast as full attention over all keys.

    Leave it:
        Where a query must pick out a few keys: a temperature well below 1 makes sharp weights, but the noise of the
        estimate, about 1 / √features for each weight, does not shrink with them. Weights may be negative. For the
        softmax of vectors that are no units, take performer.

    Source:
        "Random Feature Attention" (Peng et al. 2021), sections 3.1 to 3.3. `features` counts sines and cosines, 2 D in
        the paper's letters, so that it says the size of φ as elsewhere: 256 are the D = 128 of its translation
        experiments. As in the authors' code, |φ(q) · z| is at least 1e-3; a vector shorter than 1e-3 is divided by
        that, where the code adds it to every length. In the paper each head takes a matrix W₀ from a pool of 200 at
        every training step and keeps one for evaluation; here it does so in `after_step`, from a pool of its own. A
        hidden token passes its gate by.

    Attributes:
        features: numbers of φ(x): half of them sines, half cosines; for `arccos` one for each direction.
        gate: whether sums fade, by a gate that each token sets: `causal` only.
        temperature: the smaller, the sharper the weights.
        kernel: `gaussian`, or `arccos`: φ(x) = relu(W x̂) / √D.
        pool: how many draws of W₀ training takes turns with; with 1 they never change.
        least_weight: the least that sums of weights divide by.
        seed: what W₀ is drawn from, with the numbers of layer, head and draw.
    """

    name = "rfa"
    family = "reordered products"
    features: int = 256
    gate: bool = False
    temperature: int | float = 1.0
    kernel: Literal["gaussian", "arccos"] = "gaussian"
    pool: int = 200
    least_weight: int | float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse options that make no features."""
        for name, least in (("features", 1), ("pool", 1), ("seed", 0)):
            whole_number(name, getattr(self, name), least)
        if not isinstance(self.kernel, str) or self.kernel not in KERNELS:
            raise ValueError(unknown("kernel", self.kernel, KERNELS))
        if self.kernel == "gaussian" and self.features % 2:
            raise ValueError(must_be("features", "even, a sine and a cosine for each direction", self.features))
        if not isinstance(self.gate, bool):
            raise ValueError(must_be("gate", "True or False", self.gate))
        for name in ("temperature", "least_weight"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value <= 0:
                raise ValueError(must_be(name, "a number above 0", value))

    @property
    def inputs(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride] - one for each spec
        """With a gate, also its logits."""
        return ("q", "k", "v", "gate") if self.gate else ("q", "k", "v")

    @property
    def claims(self) -> Claims:
        """Weights may be negative; with a gate the order of keys matters, and there is only a causal form."""
        return Claims(
            causal=True,
            causal_only=self.gate,
            cross=True,
            any_length=True,
            any_mask=True,
            unordered=not self.gate,
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
    ) -> RfaLayer:
        """A layer with its draws of directions, and scales of 1."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        return RfaLayer(self, heads, head_dim, kv_heads, value_dim, layer)

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
        """Projections, keys times values, queries times their sum; causally also the pairs within chunks."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        self.refuse(causal)
        directions = directions_of(self.kernel, self.features)
        sizes = Sizes(n_q, n_k, heads, kv_heads, head_dim, value_dim, self.features, directions)
        return of_earlier_keys(sizes, self.gate) if causal else of_all_keys(sizes)

    def refuse(self, causal: bool) -> None:
        """Refuse a form that there is not.

        Raises:
            ValueError: no `causal`, with a gate.
        """
        if self.gate and not causal:
            raise ValueError(must_be("causal", f"True, as {self} has no other form", causal))

    def behind(self, tokens: int) -> Mechanism:
        """Itself: all see all, those in front included. With a gate they would be forgotten."""
        return super().behind(tokens) if self.gate else self

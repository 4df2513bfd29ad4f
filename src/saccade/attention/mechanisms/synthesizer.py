"""Synthesizer: attention weights from the query alone, or from positions alone; keys need not be asked.

Source: "Synthesizer: Rethinking Self-Attention in Transformer Models" (Tay et al. 2020, arXiv 2005.00743).

Cost: O(n^2 e) time and what the logits take; O(n d) memory, and parameters that grow with `max_length`.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import nn

from saccade.attention.inputs import AXES, hide, needed, validate, validate_built, validate_one_sequence
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, check_sizes
from saccade.attention.mechanisms._key_values import EVERYTHING, KeyValues, joined, key_values
from saccade.attention.mechanisms._query_chunks import computed_pairs
from saccade.attention.mechanisms._synthesizer.chunks import Plan, synthesized
from saccade.attention.mechanisms._synthesizer.parts import PARTS, Part, Sizes, numbers_read, products
from saccade.attention.mechanisms._synthesizer.unread import filled
from saccade.attention.record import Record
from saccade.attention.states import state_dtype, validate_initial, validate_prefill, validate_state, validate_step
from saccade.claims import Claims
from saccade.errors import must_be, unknown, whole_number
from saccade.shapes import Bool, Float, Tensor

BELONGS_TO = {"rank": "factorised_random", "block": "factorised_dense", "seed": "fixed"}
"""The options that only one part reads."""


class SynthesizerLayer(AttentionLayer):
    """A softmax over the sum of the logits of all parts. Its state holds values, and keys where dot products are made.

    Attributes:
        parts: what makes logits, by name.
        mixture: of whose softmax the shares of the parts are; `None` where there is one.
    """

    def __init__(
        self, spec: "SynthesizerAttention", heads: int, kv_heads: int, head_dim: int, value_dim: int, layer: int
    ) -> None:
        super().__init__()
        self.spec, self.heads, self.kv_heads = spec, heads, kv_heads
        self.head_dim, self.value_dim = head_dim, value_dim
        sizes = spec.sizes(heads, head_dim, layer)
        self.parts = nn.ModuleDict({name: PARTS[name](sizes) for name in spec.parts})
        self.mixture = nn.Parameter(torch.zeros(len(spec.parts))) if len(spec.parts) > 1 else None

    def forward(
        self,
        q: Float[Tensor, "b h q d"] | None,
        k: Float[Tensor, "b g k d"] | None,
        v: Float[Tensor, "b g k e"],
        key_mask: Bool[Tensor, "b k"] | None = None,
        causal: bool = False,
        q_start: int = 0,
        record: Record | None = None,
    ) -> Float[Tensor, "b h q e"]:
        """Weighted values, in fp32 or better.

        Raises:
            ValueError, TypeError: inputs that do not belong together, or more tokens than `max_length`.
        """
        q, k = filled(q, k, v, self.spec.inputs, self.heads, self.head_dim)
        if "q" in self.spec.inputs:
            validate(q, k, v, key_mask, q_start)
        else:
            validate_one_sequence(q, k, v, key_mask, q_start)
        wide, key_mask = state_dtype(v.dtype), needed(key_mask)
        with torch.autocast(v.device.type, enabled=False):
            k, v = hide(k.to(wide), v.to(wide), key_mask)
            return self._attended(q, k, v, key_mask, causal, q_start)

    def _attended(
        self,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b g k f"],
        v: Float[Tensor, "b g k e"],
        key_mask: Bool[Tensor, "b k"] | None,
        causal: bool,
        q_start: int,
    ) -> Float[Tensor, "b h q e"]:
        """The same for keys and values that are hidden already."""
        validate_built("q", q, self.heads, self.head_dim)
        if v.shape[1] != self.kv_heads:
            raise ValueError(must_be("v", f"of shape {AXES['v']} with {self.kv_heads} heads", tuple(v.shape)))
        queries, keys, group = q.shape[2], v.shape[2], self.heads // self.kv_heads
        self._refuse(keys, q_start + queries)
        given = [
            [
                x.to(v.dtype).unflatten(0, (self.kv_heads, group))
                for x in part.given(slice(q_start, q_start + queries), keys)
            ]
            for part in self._parts()
        ]
        reads = self.spec.inputs
        plan = Plan(
            tuple(part.logits(keys) for part in self._parts()), tuple(map(len, given)), queries, group, causal, q_start
        )
        out = synthesized(
            q.to(v.dtype).unflatten(1, (self.kv_heads, group)) if "q" in reads else None,
            k if "k" in reads else None,
            v,
            key_mask,
            None if self.mixture is None else self.mixture.to(v.dtype).softmax(0),
            given,
            plan,
        )
        return out.flatten(1, 2).to(q.dtype)

    def _parts(self) -> list[Part]:
        return list(self.parts.values())  # pyright: ignore[reportReturnType] - a ModuleDict tells no more

    def _refuse(self, keys: int, queries: int) -> None:
        """More tokens than the layer was built for."""
        most = self.spec.max_length
        places = any(part.places for part in self._parts())
        for name, count in (("number of keys", keys), ("positions of queries", queries if places else 0)):
            if count > most:
                constraint = "at most its max_length (give a larger one for longer inputs)"
                raise ValueError(must_be(f"{name} of synthesizer(max_length={most})", constraint, count))

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> KeyValues:
        """No tokens yet."""
        dtype = validate_initial(batch, dtype)
        keys, values = (
            torch.zeros(batch, self.kv_heads, 0, dim, dtype=dtype, device=device)
            for dim in (self._kept_dim, self.value_dim)
        )
        return KeyValues(keys, values, torch.ones(batch, 0, dtype=torch.bool, device=device))

    def prefill(
        self,
        q: Float[Tensor, "b h n d"] | None,
        k: Float[Tensor, "b g n d"] | None,
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b h n e"], KeyValues]:
        """The causal form, and all tokens."""
        q, k = filled(q, k, v, self.spec.inputs, self.heads, self.head_dim)
        validate_prefill(q, k, v, key_mask)
        out = self(q, k, v, key_mask, causal=True)
        return out, joined(EVERYTHING, self._tokens(k, v, key_mask))

    def step(
        self,
        q: Float[Tensor, "b h 1 d"] | None,
        k: Float[Tensor, "b g 1 d"] | None,
        v: Float[Tensor, "b g 1 e"],
        state: KeyValues,
        key_mask: Bool[Tensor, "b 1"] | None = None,
    ) -> tuple[Float[Tensor, "b h 1 e"], KeyValues]:
        """The query at its position, with all tokens up to it; an error behind `max_length`."""
        q, k = filled(q, k, v, self.spec.inputs, self.heads, self.head_dim)
        validate_step(q, k, v, key_mask)
        (b, g, _, e), d = v.shape, self._kept_dim
        before = state.length if isinstance(state, KeyValues) else 0
        validate_state(state, KeyValues, ((b, g, before, d), (b, g, before, e), (b, before)), q)
        with torch.autocast(v.device.type, enabled=False):
            state = joined(EVERYTHING, state, self._tokens(k, v, key_mask))
            keys, values, mask = state
            return self._attended(q, keys, values, mask, causal=False, q_start=before).to(q.dtype), state

    @property
    def _kept_dim(self) -> int:
        """Numbers of a key that a state holds."""
        return self.head_dim if "k" in self.spec.inputs else 0

    def _tokens(
        self, k: Float[Tensor, "b g k d"], v: Float[Tensor, "b g k e"], key_mask: Bool[Tensor, "b k"] | None
    ) -> KeyValues:
        """Tokens as a state holds them."""
        return key_values(k[..., : self._kept_dim], v, key_mask)

    def extra_repr(self) -> str:
        """The spec."""
        return repr(self.spec)


@dataclass(frozen=True, repr=False)
class SynthesizerAttention(Mechanism):
    """Weights are made from the query alone, or learned for each pair of positions, without asking keys.

    Formula:
        out_i = Σ_j softmax_j(Σ_p m_p L_p[i, j]) v_j, with shares m = softmax(learned) of the parts p of `kind`

        dense: L[i, :] = W₂ relu(q_i) + b₂                    random, fixed: L = R, one number for each pair
        factorised_dense: L[i, j] = a_i[j // c] · b_i[j % c]  factorised_random: L = R₁ R₂ᵀ
        with a, b = A relu(q_i) + a₀, B relu(q_i) + b₀        dot: L[i, j] = q_i · k_j / √d

    Cost:
        O(n² (d + e)) time for `dense` and `dot`, O(n² e) for the others: about that of full attention, never less than
        half of it. O(n d) memory, as logits are made in chunks of queries; a decoding state holds all values, and all
        keys with `dot`. Parameters of h heads for N = max_length: h N d for `dense`; h N² for `random` (134 million
        in each layer for 8 heads and N = 4,096; `fixed` keeps as many numbers untrained); 2 h √N d and 2 h N rank for
        the factorised ones. The gradient of `random` is as large as its table.

    Use it:
        To find out whether a task needs queries that meet keys: `random` and `fixed` are mixers of positions, `dense`
        decides from one token where to look. In a mixture, `random+dot` or `dense+dot`, as a learned bias of position.

    Leave it:
        To save time: all pairs are weighted. For inputs whose positions mean little, such as padding on the left,
        packed documents or sets: every logit belongs to an absolute position. For lengths that training rarely
        saw: columns that were never seen are as they were drawn.

    Source:
        "Synthesizer: Rethinking Self-Attention in Transformer Models" (Tay et al. 2020), section 3. F(x) = W₂ relu(W₁
        x + b₁) + b₂ is split: W₁ x + b₁ of each head is the query that comes in, so that a model's projection `q`
        learns it; W₂ and b₂ of each head are here. The factorised dense part has one W₁ for both factors, as the
        paper counts its parameters; one factor is repeated and the other tiled. Shorter inputs read the first rows
        and columns. `fixed` and `random` without others read neither queries nor keys, and claim no cross
        attention, which the paper leaves to dot products. In a mixture `dense` and `dot` share the projection
        `q`, of which the paper has one each. The paper does not say how R, W₂ and the shares begin: here logits
        begin with variance one for unit normal queries, b₂ with zeros, and all shares alike.

    Attributes:
        kind: a part, or several joined by `+`: `dense`, `random`, `fixed`, `factorised_dense`, `factorised_random`,
            and, beside others only, `dot`.
        max_length: the most tokens.
        rank: columns of R₁ and R₂.
        block: the c of `factorised_dense`, how many keys share an a; about √max_length if not given.
        seed: what the tables of `fixed` are drawn from, together with layer and head.
    """

    name = "synthesizer"
    family = "synthesizers"
    kind: str = "dense"
    max_length: int = 4096
    rank: int = 8
    block: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse unknown parts, and options that nothing reads."""
        for part in self.parts:
            if part not in PARTS:
                raise ValueError(unknown("part of kind", part, PARTS))
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(must_be("kind", "different parts joined by +", self.kind))
        if self.parts == ("dot",):
            raise ValueError(must_be("kind", "more than dot, which alone is the mechanism full", self.kind))
        for option, value, least in (
            ("max_length", self.max_length, 1),
            ("rank", self.rank, 1),
            ("seed", self.seed, 0),
        ):
            whole_number(option, value, least)
        whole_number("block", self.columns)
        if self.columns > self.max_length:
            raise ValueError(must_be("block", f"at most the max_length {self.max_length}", self.columns))
        for field in fields(self):
            reader = BELONGS_TO.get(field.name)
            if reader and reader not in self.parts and getattr(self, field.name) != field.default:
                constraint = f"left out, as only {reader!r} reads it"
                raise ValueError(must_be(field.name, constraint, getattr(self, field.name)))

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the logits."""
        if not isinstance(self.kind, str):
            raise ValueError(must_be("kind", f"parts of {', '.join(PARTS)}, joined by +", self.kind))
        return tuple(self.kind.split("+"))

    @property
    def columns(self) -> int:
        """How many keys share an a."""
        return math.isqrt(self.max_length - 1) + 1 if self.block is None else self.block

    @property
    def inputs(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride] - an option decides
        """What the parts read, and values."""
        read = {name for part in self.parts for name in PARTS[part].reads}
        return tuple(name for name in AXES if name in read or name == "v")

    @property
    def claims(self) -> Claims:
        """All but indifference to order; without queries to place, queries and keys are one sequence."""
        return Claims(
            causal=True,
            cross="q" in self.inputs,
            any_length=True,
            any_mask=True,
            normalised=True,
            streaming=True,
            exportable=True,
            state_size="O(n)",
        )

    def sizes(self, heads: int, head_dim: int, layer: int = 0) -> Sizes:
        """What decides how large the parts of a layer are, and what they draw."""
        return Sizes(heads, head_dim, self.max_length, self.columns, self.rank, self.seed, layer)

    def build(
        self,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        layer: int = 0,
    ) -> SynthesizerLayer:
        """A layer; what it learns is drawn from torch's global generator, as all parameters are."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        return SynthesizerLayer(self, heads, kv_heads, head_dim, value_dim, layer)

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
        """All pairs; causally, those up to each query, and half a square for each chunk in vain.

        What is learned counts as read, but not as kept. For any length, as if `max_length` were enough.
        """
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        seen = min(n_q, n_k)
        pairs = heads * (seen * (seen + 1) // 2 + (n_q - seen) * n_k if causal else n_q * n_k)
        computed = computed_pairs(n_q, n_k, heads, kv_heads, causal)
        own = self.sizes(heads, head_dim)
        of_pairs, besides = (sum(both) for both in zip(*(products(p, own, n_q, n_k) for p in self.parts), strict=True))
        of_inputs = {"q": n_q * heads * head_dim, "k": n_k * kv_heads * head_dim, "v": n_k * kv_heads * value_dim}
        read, per_pair = sum(of_inputs[name] for name in self.inputs), 2 * (value_dim + of_pairs)
        shares = len(self.parts) if len(self.parts) > 1 else 0
        learned = shares + sum(numbers_read(part, own, n_q, n_k) for part in self.parts)
        return Cost(
            flops=per_pair * pairs + 2 * besides,
            pairs=pairs,
            bytes=4 * (read + n_q * heads * value_dim + learned),
            wasted=per_pair * (computed - pairs),
            kept=4 * (read + n_q * heads + shares),
        )

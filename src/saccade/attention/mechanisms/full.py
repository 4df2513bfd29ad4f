"""Full attention: every query looks at every key. Scaled dot product and softmax (Vaswani et al. 2017), or others.

Cost: O(n^2 d) time; memory O(n d), whatever the score and the weights: those of all pairs are never stored.
"""

import math
from dataclasses import dataclass, fields, replace

import torch

from saccade.attention.dispatch import attend
from saccade.attention.inputs import hide, needed, validate
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, check_sizes, kept_bytes, tensor_bytes
from saccade.attention.mechanisms._full.scored_chunks import Plan, Weighting, scored
from saccade.attention.mechanisms._full.scores import SHORTEST, AdditiveScore, CosineScore, DotScore, Score
from saccade.attention.mechanisms._full.weightings import ReluWeights, SoftmaxWeights, TopKWeights
from saccade.attention.mechanisms._key_values import EVERYTHING, KeyValues, joined, key_values
from saccade.attention.mechanisms._pattern_layer import PatternLayer, pattern_claims
from saccade.attention.mechanisms._query_chunks import computed_pairs
from saccade.attention.patterns import Causal, Full
from saccade.attention.record import Record
from saccade.attention.states import state_dtype, validate_initial, validate_prefill, validate_state, validate_step
from saccade.claims import Claims
from saccade.errors import must_be, unknown, whole_number
from saccade.shapes import Bool, Float, Tensor

SCORES = ("scaled_dot", "dot", "cosine", "additive")
WEIGHTS = ("softmax", "relu", "top_k")
BELONGS_TO = {"top_k": "top_k", "temperature": "cosine", "learn_temperature": "cosine", "hidden": "additive"}
"""The options that only one score or one kind of weights reads."""


class ScoredLayer(AttentionLayer):
    """Attention over all keys by a score and a weighting. Its state holds prepared keys.

    Attributes:
        score: how much a query asks for a key, with what it learns.
        weighting: what becomes of the scores of one query.
    """

    def __init__(self, score: Score, weighting: Weighting, kv_heads: int, value_dim: int) -> None:
        super().__init__()
        self.score, self.weighting = score, weighting
        self.kv_heads, self.value_dim = kv_heads, value_dim

    @property
    def fused(self) -> bool:
        """Whether torch's kernel does it: a softmax over dot products of prepared queries and keys."""
        return isinstance(self.score, DotScore) and isinstance(self.weighting, SoftmaxWeights)

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
        """Weighted values, in fp32 or better."""
        validate(q, k, v, key_mask, q_start)
        key_mask, wide = needed(key_mask), q.dtype if self.fused else state_dtype(q.dtype)
        with torch.autocast(q.device.type, enabled=False):
            k, v = hide(k.to(wide), v.to(wide), key_mask)
            out = self._attended(self.score.queries(q.to(wide)), self.score.keys(k), v, key_mask, causal, q_start)
            return out.to(q.dtype)

    def _attended(
        self,
        q: Float[Tensor, "b h q f"],
        k: Float[Tensor, "b g k f"],
        v: Float[Tensor, "b g k e"],
        key_mask: Bool[Tensor, "b k"] | None,
        causal: bool,
        q_start: int,
    ) -> Float[Tensor, "b h q e"]:
        """The same for prepared queries and keys."""
        if self.fused:
            assert isinstance(self.score, DotScore)
            pattern = Causal() if causal else Full()
            return attend(q, k, v, pattern, key_mask=key_mask, q_start=q_start, scale=self.score.scale)
        plan = Plan(self.score.pair, self.weighting, causal, q_start)
        parameter = self.score.parameter
        return scored(q, k, v, key_mask, None if parameter is None else parameter.to(q.dtype), plan)

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> KeyValues:
        """No tokens yet."""
        dtype = validate_initial(batch, dtype)
        keys, values = (
            torch.zeros(batch, self.kv_heads, 0, dim, dtype=dtype, device=device)
            for dim in (self.score.size, self.value_dim)
        )
        return KeyValues(keys, values, torch.ones(batch, 0, dtype=torch.bool, device=device))

    def prefill(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b g n d"],
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b h n e"], KeyValues]:
        """The causal form, and all tokens."""
        validate_prefill(q, k, v, key_mask)
        out = self(q, k, v, key_mask, causal=True)
        with torch.autocast(q.device.type, enabled=False):
            return out, joined(EVERYTHING, self._tokens(k, v, key_mask))

    def step(
        self,
        q: Float[Tensor, "b h 1 d"],
        k: Float[Tensor, "b g 1 d"],
        v: Float[Tensor, "b g 1 e"],
        state: KeyValues,
        key_mask: Bool[Tensor, "b 1"] | None = None,
    ) -> tuple[Float[Tensor, "b h 1 e"], KeyValues]:
        """The query with all tokens up to its own."""
        validate_step(q, k, v, key_mask)
        (b, g, _, _), e = k.shape, v.shape[3]
        before = state.length if isinstance(state, KeyValues) else 0
        validate_state(state, KeyValues, ((b, g, before, self.score.size), (b, g, before, e), (b, before)), q)
        with torch.autocast(q.device.type, enabled=False):
            state = joined(EVERYTHING, state, self._tokens(k, v, key_mask))
            queries = self.score.queries(q.to(state.keys.dtype))
            return self._attended(queries, *state, causal=False, q_start=0).to(q.dtype), state

    def _tokens(
        self, k: Float[Tensor, "b g k d"], v: Float[Tensor, "b g k e"], key_mask: Bool[Tensor, "b k"] | None
    ) -> KeyValues:
        """Tokens as a state holds them, their keys prepared."""
        tokens = key_values(k, v, key_mask)
        return tokens._replace(keys=self.score.keys(tokens.keys))

    def extra_repr(self) -> str:
        """The weighting."""
        return repr(self.weighting)


@dataclass(frozen=True, repr=False)
class FullAttention(Mechanism):
    """Every query looks at every key: the dense baseline, and attention with other scores and weights.

    Formula:
        out_i = Σ_j w_ij v_j, with weights w_i made from the scores s_ij of all visible keys

        scaled_dot: s = q · k / √d        softmax: w = exp(s) / Σ exp(s)
        dot: s = q · k                    relu: w = max(s, 0) / number of visible keys
        cosine: s = cos(q, k) / t         top_k: softmax over the k highest scores
        additive: s = w · tanh(W q + U k)

    Cost:
        O(n² d) time. O(n d) memory: torch's fused kernel, which takes every dot product and cosine with a softmax,
        never stores the weights, and the others are made in chunks of queries. A decoding state holds all tokens.
        `relu` takes about as long as the softmax, `top_k` up to twice as long (finding the highest is slow),
        `additive` 10 to 20 times as long: a tanh for each hidden number of each pair.

    Use it:
        As the baseline that everything else is held against, and wherever inputs are short: at a few hundred
        tokens nothing here is much faster. `cosine` where scores grow without bound, as in deep models and low
        precision; `relu`, `top_k` and `additive` to reproduce papers or to study weights.

    Leave it:
        For long inputs: twice the length takes four times the operations. In the base model of the paper attention
        takes more than half of all operations from 3,073 tokens on. Neither `relu` nor `top_k` saves any time: all
        scores are made.

    Source:
        "Attention Is All You Need" (Vaswani et al. 2017), section 3.2.1, as written. A query that sees no key gets
        zeros, of which the paper says nothing. `dot`: Luong et al. 2015. `cosine`: Swin V2 (Liu et al. 2022), its
        temperature t learned for each head from 0.1 on and kept above 0.01; without its position bias. `additive`:
        Bahdanau et al. 2015, without bias; its parameters begin Glorot-uniform instead of near zero; keys that several
        heads share are prepared once. `relu`: Wortsman et al. 2023, divided by the visible keys instead of the
        length. `top_k`: Explicit Sparse Transformer (Zhao et al. 2019), whose rule for ties it has: all that equal
        the k-th highest are kept. Equal means within rounding, as equal keys get scores that differ by it: two dot
        products with a query may be (2 + √d) ε |q| (|k| + |k'|) apart, ε being that of fp32 or fp64, times the
        scale. So equal keys share equally, wherever they stand; now and then a query keeps one key more.

    Attributes:
        score: `scaled_dot`, `dot`, `cosine` or `additive`.
        weights: `softmax`, `relu` or `top_k`. Those of `relu` do not sum to one.
        top_k: how many keys a query keeps, for `top_k`. Only they get a gradient.
        temperature: what the cosine is divided by, at the beginning if it is learned.
        learn_temperature: whether the temperature is learned, one for each head.
        hidden: numbers under the tanh of the additive score, as many as a key has if not given.
    """

    name = "full"
    family = "dense"
    score: str = "scaled_dot"
    weights: str = "softmax"
    top_k: int = 64
    temperature: int | float = 0.1
    learn_temperature: bool = True
    hidden: int | None = None

    def __post_init__(self) -> None:
        """Refuse unknown names, and options that nothing reads.

        Raises:
            ValueError: what is wrong, and what is allowed.
        """
        for name, options in (("score", SCORES), ("weights", WEIGHTS)):
            if getattr(self, name) not in options:
                raise ValueError(unknown(name, getattr(self, name), options))
        for name, value in (("top_k", self.top_k), ("hidden", 1 if self.hidden is None else self.hidden)):
            whole_number(name, value)
        warm = self.temperature
        if isinstance(warm, bool) or not isinstance(warm, int | float) or not SHORTEST <= warm < math.inf:
            raise ValueError(must_be("temperature", f"a number, at least {SHORTEST}", warm))
        if not isinstance(self.learn_temperature, bool):
            raise ValueError(must_be("learn_temperature", "True or False", self.learn_temperature))
        for field in fields(self):
            reader = BELONGS_TO.get(field.name, self.score)
            if reader not in (self.score, self.weights) and getattr(self, field.name) != field.default:
                constraint = f"left out, as only {reader!r} reads it"
                raise ValueError(must_be(field.name, constraint, getattr(self, field.name)))

    @property
    def claims(self) -> Claims:
        """All that softmax attention under a pattern promises; no key has a place. Only the default is `exact`."""
        exact = (self.score, self.weights) == ("scaled_dot", "softmax")
        return replace(pattern_claims(Full()), unordered=True, exact=exact, normalised=self.weights != "relu")

    def build(
        self,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        layer: int = 0,
    ) -> PatternLayer | ScoredLayer:
        """A layer; without parameters unless the score learns some."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        if self.claims.exact:
            return PatternLayer(Full(), kv_heads, head_dim, value_dim)
        return ScoredLayer(self._score(heads, kv_heads, head_dim), self._weighting(), kv_heads, value_dim)

    def _score(self, heads: int, kv_heads: int, head_dim: int) -> Score:
        if self.score == "additive":
            return AdditiveScore(heads, kv_heads, head_dim, self.hidden or head_dim)
        if self.score == "cosine":
            return CosineScore(heads, head_dim, float(self.temperature), self.learn_temperature)
        return DotScore(head_dim, 1.0 if self.score == "dot" else 1 / math.sqrt(head_dim))

    def _weighting(self) -> Weighting:
        if self.weights == "top_k":
            return TopKWeights(self.top_k)
        return ReluWeights() if self.weights == "relu" else SoftmaxWeights()

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
        """All pairs; causally, those up to each query, and half a square for each chunk in vain."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        seen = min(n_q, n_k)
        pairs = heads * (seen * (seen + 1) // 2 + (n_q - seen) * n_k if causal else n_q * n_k)
        sizes = n_q, n_k, heads, kv_heads, head_dim, value_dim
        vectors, kept, prepared, size = n_q * heads + n_k * kv_heads, kept_bytes(*sizes), 0, head_dim
        if self.score == "cosine":  # the length of each vector
            kept += 4 * (vectors + heads * self.learn_temperature)
        if self.score == "additive":  # what is projected is kept, and so are the projections
            size = self.hidden or head_dim
            kept += 4 * vectors * size
            prepared = 2 * vectors * head_dim * size
        per_pair, computed = 2 * (size + value_dim), pairs
        if self.score == "additive" or self.weights != "softmax":
            computed = computed_pairs(n_q, n_k, heads, kv_heads, causal)
            kept += 4 * n_q * heads * (self._weighting().kept - 1)
        return Cost(per_pair * pairs + prepared, pairs, tensor_bytes(*sizes), per_pair * (computed - pairs), kept)

    def behind(self, tokens: int) -> "FullAttention":
        """Itself: all see all, those in front included."""
        return self

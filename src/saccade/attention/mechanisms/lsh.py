"""LSH attention, Reformer: a query looks at tokens whose vectors point the same way, found by hashing and sorting.

Source: "Reformer" (Kitaev, Kaiser and Levskaya 2020): queries are keys as well, keys have unit length, a random
rotation R gives the bucket argmax [xR; -xR], and chunks of the tokens sorted by (bucket, position) look at themselves
and at the chunk before.

Cost: O(r n m d) time for r rounds and chunks of m tokens; memory O(n d) (`_lsh/buckets.py`).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from saccade.attention.inputs import live_lengths, needed, validate_one_sequence
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, check_sizes
from saccade.attention.mechanisms._grouped_heads import for_queries
from saccade.attention.mechanisms._lsh.buckets import attend_sorted, bucket_in_chunks, first_seen, sort_rows
from saccade.attention.mechanisms._lsh.compiled import compiled
from saccade.attention.mechanisms._lsh.hashing import digits, hashed, rotations
from saccade.attention.mechanisms._lsh.sorted_tiles import Sorted, Window
from saccade.attention.record import Record
from saccade.attention.states import state_dtype, validate_initial, validate_state, validate_step
from saccade.claims import Claims
from saccade.errors import must_be, whole_number
from saccade.shapes import Bool, Float, Int, Tensor


class Hashed(NamedTuple):
    """The decoding state: all tokens.

    Attributes:
        keys: of unit length, zero where hidden.
        values: zero where hidden.
        buckets: the number of each token's bucket in each round, -1 where hidden.
    """

    keys: Float[Tensor, "b h n d"]
    values: Float[Tensor, "b g n e"]
    buckets: Float[Tensor, "b h n r"]


class LshLayer(AttentionLayer):
    """Attention among tokens that hashing has brought together; no parameters.

    Attributes:
        spec: its options.
        layer: number of the layer, from which rotations are drawn.
    """

    def __init__(
        self, spec: "LshAttention", heads: int, kv_heads: int, head_dim: int, value_dim: int, layer: int
    ) -> None:
        super().__init__()
        self.spec, self.layer = spec, layer
        self.heads, self.kv_heads, self.head_dim, self.value_dim = heads, kv_heads, head_dim, value_dim

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Tensor | None,
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
        causal: bool = False,
        q_start: int = 0,
        record: Record | None = None,
    ) -> Float[Tensor, "b h n e"]:
        """Means of the values of tokens in near buckets, in fp32 or better. `k` is not read."""
        validate_one_sequence(q, k, v, key_mask, q_start, shared_qk=True)
        key_mask, wide = needed(key_mask), state_dtype(q.dtype)
        with torch.autocast(q.device.type, enabled=False):
            queries, values = (_shown(x.to(wide), key_mask) for x in (q, v))
            if torch.compiler.is_compiling():
                return compiled(self.spec, self.layer, causal, queries, values, key_mask).to(q.dtype)
            out = attend_sorted(
                queries.flatten(0, 1), values.flatten(0, 1), *self.sorted(queries.detach(), key_mask, causal)
            )
            return out.unflatten(0, q.shape[:2]).to(q.dtype)

    def sorted(
        self, q: Float[Tensor, "b h n d"], key_mask: Bool[Tensor, "b n"] | None, causal: bool
    ) -> tuple[Sorted, tuple[int, ...], Window]:
        """The tokens by (bucket, position), hidden ones behind; how many are real; and what of them each sees."""
        spec, n = self.spec, q.shape[2]
        numbers = self.buckets(q, key_mask, causal)
        last = math.prod(spec.digits(n, causal))
        if key_mask is not None:
            numbers = numbers.masked_fill(~key_mask[:, None, None], last)
        found, at_place = sort_rows(numbers.flatten(0, 1), last + 1)
        if causal:
            found = found._replace(low=first_seen(at_place, spec.bucket))
        elif spec.same_bucket:
            low, high = bucket_in_chunks(at_place, spec.bucket)
            found = found._replace(low=low, high=high)
        real = (n,) * len(q) if key_mask is None else tuple(key_mask.sum(1).tolist())
        per_head = tuple(count for count in real for _ in range(q.shape[1]))
        tile, back = spec.tiles(causal)
        return found, per_head, Window(tile, back, causal, spec.unique, 1 / math.sqrt(q.shape[3]))

    def buckets(
        self, q: Float[Tensor, "b h n d"], key_mask: Bool[Tensor, "b n"] | None, causal: bool
    ) -> Int[Tensor, "b h r n"]:
        """The bucket of each token in each round; how many there are follows each example's live length."""
        if causal:
            return self.hashed(q, self.spec.digits(q.shape[2], causal))
        live = live_lengths(key_mask) or (q.shape[2],) * len(q)
        sizes = [self.spec.digits(n, causal) for n in live]
        found = torch.empty(*q.shape[:2], self.spec.rounds, q.shape[2], dtype=torch.int32, device=q.device)
        for size in dict.fromkeys(sizes):
            rows = torch.tensor([row for row, mine in enumerate(sizes) if mine == size], device=q.device)
            found[rows] = self.hashed(q if len(rows) == len(q) else q[rows], size)
        return found

    def hashed(self, q: Float[Tensor, "b h n d"], size: tuple[int, ...]) -> Int[Tensor, "b h r n"]:
        """The buckets of a given number of digits. A single bucket needs no hashing, and no gradient flows in any."""
        spec = self.spec
        if math.prod(size) == 1:
            return torch.zeros(*q.shape[:2], spec.rounds, q.shape[2], dtype=torch.int32, device=q.device)
        drawn = rotations(spec.seed, self.layer, q.shape[1], spec.rounds, q.shape[3], size)
        return hashed(q.flatten(0, 1), drawn).unflatten(0, q.shape[:2])

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Hashed:
        """No tokens yet."""
        dtype, h, g = validate_initial(batch, dtype), self.heads, self.kv_heads
        shapes = (h, 0, self.head_dim), (g, 0, self.value_dim), (h, 0, self.spec.rounds)
        return Hashed(*(torch.zeros(batch, *shape, dtype=dtype, device=device) for shape in shapes))

    def prefill(
        self,
        q: Float[Tensor, "b h n d"],
        k: Tensor | None,
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b h n e"], Hashed]:
        """The causal form, and all tokens with their buckets."""
        out = self(q, k, v, key_mask, causal=True)
        return out, self.tokens(q, v, key_mask)

    def step(
        self,
        q: Float[Tensor, "b h 1 d"],
        k: Tensor | None,
        v: Float[Tensor, "b g 1 e"],
        state: Hashed,
        key_mask: Bool[Tensor, "b 1"] | None = None,
    ) -> tuple[Float[Tensor, "b h 1 e"], Hashed]:
        """The token among those that it meets in any round."""
        validate_one_sequence(q, k, v, key_mask, 0, shared_qk=True)
        validate_step(q, q[:, :1].expand(-1, v.shape[1], -1, -1), v, key_mask)
        (b, h, _, d), (_, g, _, e) = q.shape, v.shape
        n = state.keys.shape[2] if isinstance(state, Hashed) else 0
        validate_state(state, Hashed, ((b, h, n, d), (b, g, n, e), (b, h, n, self.spec.rounds)), q)
        with torch.autocast(q.device.type, enabled=False):
            new = self.tokens(q, v, key_mask)
            met = self.met(state.buckets, new.buckets)
            state = Hashed(*(torch.cat(pair, 2) for pair in zip(state, new, strict=True)))
            return _asked(q.to(state.keys.dtype), state, met).to(q.dtype), state

    def tokens(
        self, q: Float[Tensor, "b h n d"], v: Float[Tensor, "b g n e"], key_mask: Bool[Tensor, "b n"] | None
    ) -> Hashed:
        """Tokens as a state holds them. Always a copy."""
        wide = state_dtype(q.dtype)
        with torch.autocast(q.device.type, enabled=False):
            q, v = _shown(q.to(wide), key_mask), _shown(v.to(wide, copy=True), key_mask)
            norm = torch.linalg.vector_norm(q, dim=-1, keepdim=True)
            keys = q / norm.masked_fill(norm == 0, 1)
            buckets = self.hashed(q.detach(), self.spec.digits(q.shape[2], causal=True)).mT.to(wide)
            return Hashed(
                keys, v, buckets if key_mask is None else buckets.masked_fill(~key_mask[:, None, :, None], -1)
            )

    def met(self, earlier: Float[Tensor, "b h n r"], own: Float[Tensor, "b h 1 r"]) -> Float[Tensor, "b h 1 m"]:
        """In how many rounds the next token meets each before it; itself at last, once, if it meets no other."""
        same, chunk = (earlier == own) & (own >= 0), self.spec.bucket
        behind = same.flip(2).cumsum(2).flip(2)  # how many of the bucket there are from this token on
        seen = same & (behind <= chunk + same.sum(2, keepdim=True) % chunk)
        met = seen.sum(3).to(own.dtype)[:, :, None]
        met = met.clamp(max=1) if self.spec.unique else met
        return torch.cat([met, (met.sum(3, keepdim=True) == 0).to(met.dtype)], 3)

    def extra_repr(self) -> str:
        """The spec."""
        return repr(self.spec)


def _shown(x: Float[Tensor, "b h n d"], key_mask: Bool[Tensor, "b n"] | None) -> Float[Tensor, "b h n d"]:
    """Zeros in place of what is hidden, so that NaN or inf there reaches no output and no gradient."""
    return x if key_mask is None else x.masked_fill(~key_mask[:, None, :, None], 0)


def _asked(q: Float[Tensor, "b h 1 d"], state: Hashed, met: Float[Tensor, "b h 1 n"]) -> Float[Tensor, "b h 1 e"]:
    """A softmax over what is met, each key as often as it is met."""
    scores = q @ state.keys.mT / math.sqrt(q.shape[3]) + met.log()
    return scores.softmax(-1) @ for_queries(state.values, q.shape[1])


@dataclass(frozen=True, repr=False)
class LshAttention(Mechanism):
    """Each query looks at tokens that a random hash puts into its own or a near bucket: those that point the same way.

    Formula:
        bucket(x) = argmax [xR; -xR]; sort by (bucket, position); P_i = the chunk of i and the one before, without i
        out_i = Σ exp(q_i · k_j / √d) v_j / Σ exp(q_i · k_j / √d) over all rounds and j in P_i, with k = q / |q|

    Cost:
        O(rounds n bucket d) time, and O(rounds n √(n / bucket) d) for hashing; O(n d) memory. A decoding state
        holds all tokens, and a step reads them.

    Use it:
        On long inputs in which a few keys matter, wherever they stand, and queries may be keys.

    Leave it:
        Below some 1,500 tokens (3,000 causally), where dense attention is as fast; where queries and keys mean
        different things; for cross attention; where all tokens point the same way, as then buckets say nothing.

    Source:
        "Reformer" (Kitaev, Kaiser and Levskaya 2020). As in the paper's formula the first chunk sees itself only (its
        code lets it see the last one). A token is hidden from itself exactly, where the paper takes 10^5 off its
        score. Keys met in several rounds count as often; the paper's appendix divides by that number: `unique`.
        There are 2 ceil(n / bucket) buckets for n live tokens; more than 64 are numbered by two even digits near the
        root, each hashed by itself (the paper's code can do so), and are then slightly more. Sorting over the whole
        input lets later tokens move earlier ones' chunks: with `causal=True` buckets are of a fixed number instead,
        each is cut into chunks of `bucket` tokens from its own start, and a query sees the earlier tokens of its
        bucket in its own chunk and the one before.

    Attributes:
        bucket: tokens in a chunk, the paper's m.
        rounds: hashes, each with a rotation of its own.
        same_bucket: whether a query sees only tokens of its own bucket within its chunks.
        unique: whether a key that is met in several rounds counts once.
        causal_buckets: buckets of the causal form, an even number; 1 for none.
        seed: what rotations are drawn from, together with layer, head and round.
    """

    name = "lsh"
    family = "clustering"
    inputs = ("q", "v")
    bucket: int = 64
    rounds: int = 4
    same_bucket: bool = False
    unique: bool = False
    causal_buckets: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no hash can have."""
        for name in ("bucket", "rounds", "causal_buckets"):
            whole_number(name, getattr(self, name))
        if self.causal_buckets % 2 and self.causal_buckets != 1:
            raise ValueError(must_be("causal_buckets", "even, or 1", self.causal_buckets))
        whole_number("seed", self.seed, 0)
        for name in ("same_bucket", "unique"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(must_be(name, "True or False", getattr(self, name)))

    @property
    def claims(self) -> Claims:
        """All but other keys than the queries, and an order that does not matter."""
        return Claims(
            causal=True,
            any_length=True,
            any_mask=True,
            normalised=True,
            streaming=True,
            shared_qk=True,
            state_size="O(n)",
        )

    def digits(self, n: int, causal: bool) -> tuple[int, ...]:
        """How the buckets are numbered: the paper's 2n / m for n live tokens; causally the same for any n."""
        return digits(self.causal_buckets if causal else 2 * max(1, -(-n // self.bucket)))

    def tiles(self, causal: bool) -> tuple[int, int]:
        """Places in a tile of queries, and how many tiles before it they may see."""
        if not causal:
            return self.bucket, 1
        # The chunk before begins up to 2 bucket - 1 places before its last reader.
        tile = min(max(self.bucket, 32), 64)
        return tile, -(-(2 * self.bucket - 1) // tile)

    def build(
        self,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        layer: int = 0,
    ) -> LshLayer:
        """A layer without parameters."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        return LshLayer(self, heads, kv_heads, head_dim, value_dim, layer)

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
        """Hashing, and all pairs of tiles, in each round. Pairs that depend on the input are those of equal buckets."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        n, runs, size = n_q, heads * self.rounds, self.digits(n_q, causal)
        directions = sum(size) // 2 if math.prod(size) > 1 else 0
        tile, back = self.tiles(causal)
        tile = min(tile, max(n, 1))
        tiles = -(-n // tile)
        computed = runs * tiles * tile**2 * (1 + min(back, max(tiles - 1, 0)))
        pairs = runs * self._pairs_of_a_round(n, causal)
        bounds = 1 if causal else 2 * self.same_bucket
        kept = heads * (head_dim + 1 + self.rounds * (2 + bounds)) + kv_heads * value_dim
        return Cost(
            flops=2 * (pairs * (head_dim + value_dim) + runs * n * directions * head_dim),
            pairs=pairs,
            bytes=4 * n * (heads * (head_dim + value_dim) + kv_heads * value_dim),
            wasted=2 * (computed - pairs) * (head_dim + value_dim),
            kept=4 * n * kept,
        )

    def _pairs_of_a_round(self, n: int, causal: bool) -> int:
        """Pairs that meet, where all buckets hold the same number of tokens, or one more."""
        buckets = math.prod(self.digits(n, causal)) if causal or self.same_bucket else 1
        held, more = divmod(n, buckets)
        count = _earlier if causal else _near
        return (buckets - more) * count(held, self.bucket) + more * count(held + 1, self.bucket)


def _near(n: int, chunk: int) -> int:
    """Pairs of n tokens in chunks: each with the others of its chunk and with those of the chunk before."""
    full, rest = divmod(n, chunk)
    chunks = full * chunk * (chunk - 1) + rest * (rest - 1)
    return chunks + max(full - 1, 0) * chunk**2 + (rest * chunk if full else 0)


def _earlier(n: int, chunk: int) -> int:
    """The same with the earlier ones of its chunk."""
    full, rest = divmod(n, chunk)
    return _near(n, chunk) - (full * chunk * (chunk - 1) + rest * (rest - 1)) // 2

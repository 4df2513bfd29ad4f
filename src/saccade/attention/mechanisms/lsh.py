"""LSH attention, Reformer: a query looks at tokens whose vectors point the same way, found by hashing and sorting.

Source: "Reformer" (Kitaev, Kaiser and Levskaya 2020): queries are keys as well, keys have unit length, a random
rotation R gives the bucket argmax [xR; -xR], and chunks of the tokens sorted by (bucket, position) look at themselves
and at the chunk before.

Cost: O(r n m d) time for r rounds and chunks of m tokens; memory O(n d) (`_buckets.py`).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import torch

from saccade.attention.backends._tiles import Workspace, workspace
from saccade.attention.inputs import hide, live_lengths, needed, validate_one_sequence
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, check_sizes
from saccade.attention.mechanisms._buckets import Sorted, Window, attend_sorted, sort_rows, starts
from saccade.attention.record import Record
from saccade.attention.states import state_dtype, validate_initial, validate_state, validate_step
from saccade.claims import Claims
from saccade.errors import must_be
from saccade.shapes import Bool, Float, Int, Tensor

ONE_DIGIT = 64
"""Up to so many buckets each has directions of its own; more are numbered by two digits, each hashed by itself."""

PRODUCTS = 2**20
"""Products with directions at a time: they stay in cache."""

DRAWN = 32
"""Directions are drawn so many at a time, so that the first ones do not depend on how many are wanted."""


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


def digits(buckets: int) -> tuple[int, ...]:
    """The even digits that number at least so many buckets: one, or two of about the same size."""
    if buckets <= ONE_DIGIT:
        return (buckets,)
    first = 2 * math.ceil(math.sqrt(buckets) / 2)
    return first, 2 * math.ceil(buckets / (2 * first))


@lru_cache(maxsize=64)
def rotations(seed: int, layer: int, heads: int, rounds: int, dim: int, size: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Random directions for each digit, `[h r d f]` in float64: half as many as it has values."""
    return tuple(
        torch.stack(
            [
                torch.stack([_directions((seed, layer, head, turn, digit), dim, values // 2) for turn in range(rounds)])
                for head in range(heads)
            ]
        )
        for digit, values in enumerate(size)
    )


def _directions(key: tuple[int, ...], dim: int, count: int) -> Float[Tensor, "d f"]:
    """The first normally distributed directions of a stream of them."""
    seed = int.from_bytes(blake2b(repr(key).encode(), digest_size=7).digest(), "little")
    generator = torch.Generator(device="cpu").manual_seed(seed)
    drawn = [
        torch.randn(DRAWN, dim, generator=generator, dtype=torch.float64, device="cpu") for _ in range(0, count, DRAWN)
    ]
    return torch.cat(drawn)[:count].mT


def hashed(x: Float[Tensor, "m n d"], directions: tuple[Tensor, ...]) -> Int[Tensor, "m r n"]:
    """The bucket of each token in each round: argmax [xR; -xR], digit by digit, some heads at a time."""
    heads, rounds, dim, _ = directions[0].shape
    found = torch.zeros(len(x), rounds, x.shape[1], dtype=torch.int32, device=x.device)
    work, head = workspace(x.dtype, x.device), torch.arange(len(x), device=x.device) % heads
    for rotation in directions:
        count = rotation.shape[3]
        rows = rotation.to(x).transpose(2, 3).reshape(heads, rounds * count, dim)
        step = max(1, PRODUCTS // max(1, rounds * count * x.shape[1]))
        for some, mine, its in zip(x.split(step), found.split(step), head.split(step), strict=True):
            out = work.take("turned", len(some), rounds * count, x.shape[1])
            torch.bmm(rows.index_select(0, its), some.mT, out=out)
            mine.mul_(2 * count).add_(_largest(work, out.view(len(some), rounds, count, -1)))
    return found


def _largest(work: Workspace, turned: Float[Tensor, "m r f n"]) -> Int[Tensor, "m r n"]:
    """The number of the largest of [xR; -xR], the first of equals. `argmax` takes several times as long."""
    count = turned.shape[2]
    high, low = turned.amax(2, keepdim=True), turned.amin(2, keepdim=True)
    negative = high < -low
    equal = torch.eq(turned, torch.where(negative, low, high), out=work.take("equal", *turned.shape))
    falling = torch.arange(count, 0, -1, dtype=turned.dtype, device=turned.device)[:, None]
    found = count - equal.mul_(falling).amax(2)
    return (found + negative.squeeze(2) * count).clamp_(max=2 * count - 1).int()


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
            queries, values = hide(q.to(wide), v.to(wide), key_mask)
            found, window = self.sorted(queries.detach(), key_mask, causal)
            real = (q.shape[2],) * len(q) if key_mask is None else tuple(key_mask.sum(1).tolist())
            per_head = tuple(count for count in real for _ in range(q.shape[1]))
            out = attend_sorted(queries.flatten(0, 1), values.flatten(0, 1), found, per_head, window)
            return out.unflatten(0, q.shape[:2]).to(q.dtype)

    def sorted(
        self, q: Float[Tensor, "b h n d"], key_mask: Bool[Tensor, "b n"] | None, causal: bool
    ) -> tuple[Sorted, Window]:
        """The tokens by (bucket, position), hidden ones behind, and what of them each sees."""
        spec, n = self.spec, q.shape[2]
        numbers = self.buckets(q, key_mask, causal)
        last = int(math.prod(digits(spec.causal_buckets if causal else spec.wanted(n))))
        if key_mask is not None:
            numbers = numbers.masked_fill(~key_mask[:, None, None], last)
        found, at_place = sort_rows(numbers.flatten(0, 1), last + 1)
        if causal:
            found = found._replace(low=_first_seen(at_place, spec.bucket))
        elif spec.same_bucket:
            low, high = _bucket_in_chunks(at_place, spec.bucket)
            found = found._replace(low=low, high=high)
        tile, back = spec.tiles(causal)
        return found, Window(tile, back, causal, spec.unique, 1 / math.sqrt(q.shape[3]))

    def buckets(
        self, q: Float[Tensor, "b h n d"], key_mask: Bool[Tensor, "b n"] | None, causal: bool
    ) -> Int[Tensor, "b h r n"]:
        """The bucket of each token in each round; how many there are follows each example's live length."""
        if causal:
            return self.hashed(q, digits(self.spec.causal_buckets))
        live = live_lengths(key_mask) or (q.shape[2],) * len(q)
        sizes = [digits(self.spec.wanted(n)) for n in live]
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
            q, v = hide(q.to(wide), v.to(wide, copy=True), key_mask)
            norm = torch.linalg.vector_norm(q, dim=-1, keepdim=True)
            keys = q / norm.masked_fill(norm == 0, 1)
            buckets = self.hashed(q.detach(), digits(self.spec.causal_buckets)).mT.to(wide)
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


def _asked(q: Float[Tensor, "b h 1 d"], state: Hashed, met: Float[Tensor, "b h 1 n"]) -> Float[Tensor, "b h 1 e"]:
    """A softmax over what is met, each key as often as it is met."""
    scores = q @ state.keys.mT / math.sqrt(q.shape[3]) + met.log()
    values = state.values.repeat_interleave(q.shape[1] // state.values.shape[1], 1)
    return scores.softmax(-1) @ values


def _first_seen(at_place: Int[Tensor, "m r n"], chunk: int) -> Int[Tensor, "m r n"]:
    """The start of the chunk before that of each place, where each bucket is cut into chunks from its own start."""
    first = starts(at_place)
    begin = torch.arange(at_place.shape[2], device=at_place.device) - first
    return (first + (begin // chunk - 1).clamp_(min=0) * chunk).int()


def _bucket_in_chunks(at_place: Int[Tensor, "m r n"], chunk: int) -> tuple[Tensor, Tensor]:
    """Where the bucket of each place begins and ends, within the chunk of the place and the one before."""
    n = at_place.shape[2]
    own = torch.arange(n, device=at_place.device) // chunk
    end = n - starts(at_place.flip(2)).flip(2)
    low, high = starts(at_place).maximum((own - 1) * chunk), end.minimum((own + 1) * chunk)
    return low.int(), high.int()


@dataclass(frozen=True, repr=False)
class LshAttention(Mechanism):
    """Each query looks at tokens that a random hash puts into its own or a near bucket: those that point the same way.

    Formula:
        bucket(x) = argmax [xR; -xR]; sort by (bucket, position); P_i = chunk of i and the chunk before, without i
        out_i = sum over rounds and j in P_i of exp(q_i . k_j / sqrt(d)) v_j / (the same sum without v_j), k = q / |q|

    Cost:
        time O(rounds n bucket d), and O(rounds n sqrt(n / bucket) d) for hashing; memory O(n d); a decoding state
        holds all tokens, O(n), and a step reads them.

    Use it:
        on long inputs in which a few keys matter, wherever they stand, and queries may be keys.

    Leave it:
        below some 1,500 tokens, where dense attention is as fast; where queries and keys mean different things; for
        cross attention; where all tokens point the same way, as then buckets say nothing.

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
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(must_be(name, "a whole number, at least 1", value))
        if self.causal_buckets % 2 and self.causal_buckets != 1:
            raise ValueError(must_be("causal_buckets", "even, or 1", self.causal_buckets))
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ValueError(must_be("seed", "a whole number", self.seed))
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

    def wanted(self, n: int) -> int:
        """How many buckets there are for so many tokens."""
        return 2 * max(1, math.ceil(n / self.bucket))

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
        """Hashing, and the pairs of whole tiles. Causally, pairs are those of buckets that are equally full."""
        raise NotImplementedError

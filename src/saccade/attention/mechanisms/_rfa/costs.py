"""What random feature attention takes: its products, and what training keeps of them.

Cost: a handful of multiplications.
"""

from dataclasses import dataclass

from saccade.attention.mechanism import Cost, tensor_bytes
from saccade.attention.mechanisms._feature_map import CHUNK, ROWS


@dataclass(frozen=True)
class Sizes:
    """Of one example.

    Attributes:
        n_q: queries.
        n_k: keys.
        heads: of queries.
        kv_heads: of keys and values.
        head_dim: of queries and keys.
        value_dim: of values.
        features: of each.
        directions: that make them.
    """

    n_q: int
    n_k: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    features: int
    directions: int

    @property
    def sums(self) -> int:
        """Numbers of S and z."""
        return self.features * (self.value_dim + 1)

    @property
    def projected(self) -> int:
        """Products of one vector with all directions."""
        return self.head_dim * self.directions

    @property
    def moved(self) -> int:
        """Bytes of inputs and output."""
        return tensor_bytes(self.n_q, self.n_k, self.heads, self.kv_heads, self.head_dim, self.value_dim)

    @property
    def lengths(self) -> int:
        """Bytes of queries and keys as they come, with the length of each: kept to make them units again."""
        return 4 * (self.n_q * self.heads + self.n_k * self.kv_heads) * (self.head_dim + 1)


def of_all_keys(by: Sizes) -> Cost:
    """Keys times values once, queries times their sum."""
    keys = by.kv_heads * by.n_k * (by.projected + by.features * by.value_dim)
    units = by.n_q * by.heads * (by.head_dim + 1) + by.n_k * by.kv_heads * (by.head_dim + by.value_dim)
    kept = by.lengths + 4 * (units + by.kv_heads * by.sums)
    return Cost(2 * (keys + by.heads * by.n_q * (by.projected + by.sums)), 0, by.moved, kept=kept)


def of_earlier_keys(by: Sizes, gate: bool) -> Cost:
    """Chunk by chunk: pairs within, and the sums before; with gates z takes no product, and scales are kept."""
    chunk = min(CHUNK, by.n_q)
    chunks, cuts = -(-by.n_q // chunk), -(-by.n_q // ROWS)
    n, pairs = chunks * chunk, by.heads * chunks * chunk**2
    row = 2 * (by.projected + by.features * by.value_dim) + (0 if gate else by.features)
    flops = 2 * (pairs * (by.features + by.value_dim) + by.heads * n * row)
    kept = by.lengths + 4 * by.heads * (n * (2 * by.head_dim + by.value_dim + 1) + cuts * by.sums)
    if gate:  # logits, in double too, and as many buffers; two scales for each row, and which rows are real
        kept += 36 * by.n_k * by.kv_heads + by.heads * n * (8 if n == by.n_q else 12)
    return Cost(flops, pairs, by.moved + 8 * by.heads * chunks * by.sums, kept=kept)

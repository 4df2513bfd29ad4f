"""Naive float64 formulas to judge the package by, written from the papers and the design, not from the code.

Nothing here imports `saccade`. Loops are welcome, speed is not a goal, and every function names its source.

A pattern is described by a predicate `sees(q, k, n)`: may the query at position `q` look at the key at
position `k` in a sequence of `n` real tokens? All positions are absolute.
"""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

Predicate = Callable[[int, int, int], bool]
INF = float("inf")


def full() -> Predicate:
    """Vaswani et al. 2017: every query sees every key."""
    return lambda q, k, n: True


def causal() -> Predicate:
    """Vaswani et al. 2017, section 3.2.3: no query sees a later key; itself it does see."""
    return lambda q, k, n: k <= q


def local(left: float, right: float, block: int | None = None) -> Predicate:
    """Design, section 3: query i sees keys i-left .. i+right; with `block`, the same sentence about blocks."""
    size = 1 if block is None else block
    return lambda q, k, n: q // size - left <= k // size <= q // size + right


def strided(stride: int, steps: int | None = None) -> Predicate:
    """Design, section 3: keys a multiple of `stride` away, at most `steps` of them to each side; self included."""

    def sees(q: int, k: int, n: int) -> bool:
        distance = abs(q - k)
        return distance % stride == 0 and (steps is None or distance // stride <= steps)

    return sees


def global_tokens(
    first: int = 0, last: int = 0, positions: Collection[int] = (), rows: bool = True, columns: bool = True
) -> Predicate:
    """Beltagy et al. 2020, section 3.1: a global token sees all (its row) and all see it (its column)."""

    def is_global(position: int, n: int) -> bool:
        return position < first or n - last <= position < n or position in positions

    return lambda q, k, n: (rows and is_global(q, n)) or (columns and is_global(k, n))


def grid(height: int, width: int, radius: int) -> Predicate:
    """Hassani et al. 2023, cut off at the border: cells at most `radius` rows and columns away."""

    def sees(q: int, k: int, n: int) -> bool:
        (query_row, query_column), (key_row, key_column) = divmod(q, width), divmod(k, width)
        near = abs(query_row - key_row) <= radius and abs(query_column - key_column) <= radius
        return near and query_row < height and key_row < height

    return sees


def axial(height: int, width: int) -> Predicate:
    """Ho et al. 2019: the cells of the query's own row and column."""

    def sees(q: int, k: int, n: int) -> bool:
        (query_row, query_column), (key_row, key_column) = divmod(q, width), divmod(k, width)
        return query_row < height and key_row < height and (query_row == key_row or query_column == key_column)

    return sees


def edges(pairs: Collection[tuple[int, int]]) -> Predicate:
    """Design, section 3: a query sees the sources of its incoming edges, given as (source, target)."""
    return lambda q, k, n: (k, q) in pairs


def segments(ids: Sequence[int]) -> Predicate:
    """Design, section 3: packed documents, each of which sees itself; a negative number is no document."""
    return lambda q, k, n: ids[q] == ids[k] and ids[q] >= 0


def shifted(sees: Predicate, by: int) -> Predicate:
    """Design, section 3: the pattern behind `by` extra tokens."""
    return lambda q, k, n: q >= by and k >= by and sees(q - by, k - by, max(n - by, 0))


def union(*parts: Predicate) -> Predicate:
    return lambda q, k, n: any(sees(q, k, n) for sees in parts)


def intersection(*parts: Predicate) -> Predicate:
    return lambda q, k, n: all(sees(q, k, n) for sees in parts)


def longformer(window: int, positions: Collection[int]) -> Predicate:
    """Beltagy et al. 2020: half of `window` to each side, and chosen tokens that are global both ways."""
    half = window // 2
    return lambda q, k, n: abs(q - k) <= half or q in positions or k in positions


def big_bird_without_random(block: int, window_blocks: int) -> Predicate:
    """Zaheer et al. 2020, ITC: a window of whole blocks; the first and the last block see and are seen by all.

    As the paper has it, `n` is a multiple of `block`.
    """

    def sees(q: int, k: int, n: int) -> bool:
        query_block, key_block, last = q // block, k // block, n // block - 1
        near = abs(query_block - key_block) <= window_blocks // 2
        return near or query_block in (0, last) or key_block in (0, last)

    return sees


def sparse_transformer(stride: int) -> Predicate:
    """Child et al. 2019, section 4.3, `strided`, both heads merged: {max(0, i-l) .. i} and {j: (i-j) mod l = 0}."""

    def sees(q: int, k: int, n: int) -> bool:
        recent = set(range(max(0, q - stride), q + 1))
        regular = {j for j in range(q + 1) if (q - j) % stride == 0}
        return k in recent | regular

    return sees


def dense(sees: Predicate, n_q: int, n_k: int, q_start: int = 0, length: int | None = None) -> Tensor:
    """The predicate as a matrix, Bool[n_q n_k]; the first query stands at key position `q_start`."""
    n = n_k if length is None else length
    rows = [[sees(q_start + q, k, n) for k in range(n_k)] for q in range(n_q)]
    return torch.tensor(rows, dtype=torch.bool).reshape(n_q, n_k)


def repeat_heads(grouped: Tensor, heads: int) -> Tensor:
    """Ainslie et al. 2023: query head i reads key head i // (heads / groups)."""
    each = heads // grouped.shape[1]
    return torch.stack([grouped[:, head // each] for head in range(heads)], dim=1)


def attention(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scale: float | None = None, bias: Tensor | None = None
) -> Tensor:
    """Vaswani et al. 2017, one query at a time: softmax over the keys it may see; zeros where there are none.

    Gradients come from autograd. `allowed` broadcasts to [b h q k].
    """
    batch, heads, n_q, dim = q.shape
    n_k = k.shape[2]
    k, v = repeat_heads(k, heads), repeat_heads(v, heads)
    allowed = allowed.expand(batch, heads, n_q, n_k)
    outputs = [q.new_zeros(batch, heads, 0, v.shape[-1])]
    for i, query in enumerate(q.unbind(2)):
        scores = (query[:, :, None] * k).sum(-1) * (dim**-0.5 if scale is None else scale)
        if bias is not None:
            scores = scores + bias.expand(batch, heads, n_q, n_k)[:, :, i]
        seen = allowed[:, :, i]
        weights = torch.zeros_like(scores)
        if n_k > 0:
            highest = scores.detach().masked_fill(~seen, -INF).amax(-1, keepdim=True).clamp(min=-1e300)
            weights = torch.where(seen, (torch.where(seen, scores, highest) - highest).exp(), 0.0)
        total = weights.sum(-1, keepdim=True)
        weights = weights / torch.where(total == 0, 1.0, total)
        outputs.append((weights[..., None] * v).sum(2)[:, :, None])
    return torch.cat(outputs, dim=2)


def elu_plus_one(x: Tensor) -> Tensor:
    """Katharopoulos et al. 2020, equation 7: exp(x) below zero, x + 1 above."""
    return torch.where(x > 0, x + 1, torch.exp(torch.where(x > 0, 0.0, x)))


def linear_attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    """Katharopoulos et al. 2020, equation 4, as the double loop; zeros where a query sees nothing."""
    batch, heads, n_q, _ = q.shape
    n_k = k.shape[2]
    phi_q, phi_k, v = elu_plus_one(q), elu_plus_one(repeat_heads(k, heads)), repeat_heads(v, heads)
    allowed = allowed.expand(batch, heads, n_q, n_k)
    out = []
    for i in range(n_q):
        numerator = v.new_zeros(batch, heads, v.shape[-1])
        denominator = v.new_zeros(batch, heads, 1)
        for j in range(n_k):
            similarity = (phi_q[:, :, i] * phi_k[:, :, j]).sum(-1, keepdim=True) * allowed[:, :, i, j, None]
            numerator = numerator + similarity * v[:, :, j]
            denominator = denominator + similarity
        out.append(numerator / torch.where(denominator == 0, 1.0, denominator))
    return torch.stack(out, dim=2)


def linear_attention_recurrent(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
    """Katharopoulos et al. 2020, equations 16 to 20: the causal form as a recurrence over S and z."""
    batch, heads, n, dim = q.shape
    phi_q, phi_k, v = elu_plus_one(q), elu_plus_one(repeat_heads(k, heads)), repeat_heads(v, heads)
    real = torch.ones(batch, n, dtype=torch.bool) if key_mask is None else key_mask
    state = q.new_zeros(batch, heads, dim, v.shape[-1])
    normaliser = q.new_zeros(batch, heads, dim)
    out = []
    for i in range(n):
        key = phi_k[:, :, i] * real[:, None, i, None]
        state = state + key[..., :, None] * v[:, :, i, None, :]
        normaliser = normaliser + key
        total = (phi_q[:, :, i] * normaliser).sum(-1, keepdim=True)
        numerator = (phi_q[:, :, i, :, None] * state).sum(-2)
        out.append(numerator / torch.where(total == 0, 1.0, total))
    return torch.stack(out, dim=2)

"""Sparse Sinkhorn Attention in float64, query by query, written from the paper (Tay et al. 2020) and not from the code.

Nothing here imports `saccade`; weights are divided, never taken as logarithms.
"""

import math

import torch
from torch import Tensor


def sinkhorn_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    block: int,
    iterations: int,
    temperature: float = 1.0,
    real: Tensor | None = None,
    causal: bool = False,
    net: Tensor | None = None,
    noise: Tensor | None = None,
    cut: int | None = None,
) -> Tensor:
    """Equations of section 3: block sums, balancing, sorted blocks, and one softmax over sorted and own block.

    Args:
        q: `[b h n d]`.
        k: `[b g n d]`.
        v: `[b g n e]`.
        block: positions in a block.
        iterations: how often columns and rows are normalised after the rows were.
        temperature: divides the logits.
        real: `[b n]`; a position that is not is zero in every sum, and so is its query.
        causal: whether a block takes only from earlier ones.
        net: `[h 2d blocks]`, the linear map of the paper; the dot product of block sums if not given.
        noise: `[b h blocks blocks]`, added to the logits.
        cut: SortCut: every query sees the first sorted blocks, so many, and nothing else.
    """
    b, h, n, _ = q.shape
    real = torch.ones(b, n, dtype=torch.bool) if real is None else real
    k, v = (x.repeat_interleave(h // x.shape[1], 1) for x in (k, v))
    q, k, v = (torch.where(real[:, None, :, None], x, 0.0) for x in (q, k, v))
    options = {"block": block, "causal": causal, "cut": cut}
    outs = []
    for x in range(b):
        for head in range(h):
            logits = block_logits(q[x, head], k[x, head], real[x], block, causal, None if net is None else net[head])
            logits = (logits if noise is None else logits + noise[x, head]) / temperature
            order = balanced(logits, live_blocks(real[x], block), iterations, causal)
            outs.append(one_head(q[x, head], k[x, head], v[x, head], real[x], order, **options))
    return torch.stack(outs).view(b, h, n, -1)


def live_blocks(real: Tensor, block: int) -> list[bool]:
    """Which blocks hold a real token."""
    return [bool(part.any()) for part in real.split(block)]


def block_logits(q: Tensor, k: Tensor, real: Tensor, block: int, causal: bool, net: Tensor | None) -> Tensor:
    """How well block j would stand in place i. Sums are divided by the root of how many tokens they are of."""
    starts = range(0, len(real), block)

    def pooled(x: Tensor, begin: int, end: int) -> Tensor:
        return x[begin:end].sum(0) / math.sqrt(max(1, int(real[begin:end].sum())))

    def asking(x: Tensor) -> list[Tensor]:
        """Causally all that is known at the first token of the block."""
        return [pooled(x, 0, start + 1) if causal else pooled(x, start, start + block) for start in starts]

    if net is not None:
        rows = [torch.cat(pair) @ net[:, : len(starts)] for pair in zip(asking(q), asking(k), strict=True)]
        return torch.stack(rows)
    keys = torch.stack([pooled(k, start, start + block) for start in starts])
    return torch.stack(asking(q)) @ keys.T / math.sqrt(q.shape[1])


def balanced(logits: Tensor, live: list[bool], iterations: int, causal: bool) -> Tensor:
    """Sinkhorn balancing: the paper's S^K, and the rows once more. Causally a column counts the rows so far."""
    count = len(live)
    if causal:
        return balanced_causally(logits, live, iterations)
    order = logits.exp() * torch.tensor([[a and c for c in live] for a in live])
    for _ in range(iterations):
        order = order / or_one(order.sum(1, keepdim=True))
        order = order / or_one(order.sum(0, keepdim=True))
    assert order.shape == (count, count)
    return order / or_one(order.sum(1, keepdim=True))


def balanced_causally(logits: Tensor, live: list[bool], iterations: int) -> Tensor:
    """Row after row: each knows what the rows before it took of every block, at every turn of the balancing."""
    count = len(live)
    taken = [torch.zeros(count, dtype=logits.dtype) for _ in range(iterations)]
    rows = []
    for i in range(count):
        visible = torch.tensor([j < i and live[j] for j in range(count)])
        row = torch.where(visible, logits[i].exp(), 0.0)
        row = row / or_one(row.sum())
        for turn in range(iterations):
            taken[turn] = taken[turn] + row
            row = row / or_one(taken[turn])
            row = row / or_one(row.sum())
        rows.append(row)
    return torch.stack(rows)


def or_one(total: Tensor) -> Tensor:
    """For a division: nothing divided by nothing is nothing."""
    return torch.where(total == 0, 1.0, total)


def one_head(
    q: Tensor, k: Tensor, v: Tensor, real: Tensor, order: Tensor, block: int, causal: bool, cut: int | None
) -> Tensor:
    """Every query by itself."""
    n, live = len(q), live_blocks(real, block)
    outs = []
    for position in range(n):
        own = position // block
        places = [own] if cut is None else [i for i, alive in enumerate(live) if alive][:cut]
        seen = [slot for place in places for slot in sorted_block(k, v, real, order[place], block)]
        if cut is None:
            end = position + 1 if causal else min(n, (own + 1) * block)
            seen += [(k[at], v[at], q.new_zeros(())) for at in range(own * block, end) if real[at]]
        if not seen:
            outs.append(v.new_zeros(v.shape[1]) + 0 * q.sum())
            continue
        keys, values, shift = (torch.stack(each) for each in zip(*seen, strict=True))
        outs.append((keys @ q[position] / math.sqrt(q.shape[1]) + shift).softmax(0) @ values)
    return torch.stack(outs)


def sorted_block(k: Tensor, v: Tensor, real: Tensor, row: Tensor, block: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The slots of one sorted block: mean key and value of the real tokens mixed there, and the log of their mass."""
    slots = []
    for t in range(block):
        found = [j for j in range(len(row)) if j * block + t < len(k) and real[j * block + t] and row[j] > 0]
        if found:
            share, at = row[found], [j * block + t for j in found]
            mass = share.sum()
            slots.append((share @ k[at] / mass, share @ v[at] / mass, mass.log()))
    return slots

"""Naive float64 formulas of the Synthesizer, from "Synthesizer: Rethinking Self-Attention" (Tay et al. 2020).

Written from the paper, one query at a time; nothing here imports `saccade`. `given` holds what a part has learned for
all heads, by the names below. The queries are the first projection of F, W1 x + b1, of each head.
"""

import torch
from torch import Tensor

Given = dict[str, Tensor]


def dense(q: Tensor, k: Tensor, row: int, head: int, given: Given) -> Tensor:
    """Section 3.2: F(x) = W2 relu(W1 x + b1) + b2. `weight` [h d N], `bias` [h N]."""
    hidden = torch.where(q > 0, q, torch.zeros_like(q))
    return (hidden[:, None] * given["weight"][head, :, : len(k)]).sum(0) + given["bias"][head, : len(k)]


def factorised_dense(q: Tensor, k: Tensor, row: int, head: int, given: Given) -> Tensor:
    """Section 3.4.1: each number of F_A repeated, times F_B tiled. `a_weight` [h d a], `a_bias` [h a], so b."""
    hidden = torch.where(q > 0, q, torch.zeros_like(q))
    a, b = ((hidden[:, None] * given[f"{name}_weight"][head]).sum(0) + given[f"{name}_bias"][head] for name in "ab")
    return torch.cat([one * b for one in a])[: len(k)]


def table(q: Tensor, k: Tensor, row: int, head: int, given: Given) -> Tensor:
    """Section 3.3: a number for each pair of positions, whatever stands there. `table` [h N N]."""
    return given["table"][head, row, : len(k)]


def factorised_random(q: Tensor, k: Tensor, row: int, head: int, given: Given) -> Tensor:
    """Section 3.4.2: R1 R2^T. `rows` and `columns`, [h N rank] each."""
    rows, columns = given["rows"][head, row], given["columns"][head]
    return (rows * columns[: len(k)]).sum(1)


def dot(q: Tensor, k: Tensor, row: int, head: int, given: Given) -> Tensor:
    """Vaswani et al. 2017: scaled dot products."""
    return (q * k).sum(1) / k.shape[1] ** 0.5


PARTS = {
    "dense": dense,
    "random": table,
    "fixed": table,
    "factorised_dense": factorised_dense,
    "factorised_random": factorised_random,
    "dot": dot,
}


def synthesizer(
    kind: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    given: Given,
    key_mask: Tensor | None = None,
    causal: bool = False,
    q_start: int = 0,
) -> Tensor:
    """Section 3.5: the softmax of the logits of all parts, each times its share of one, and with it the values.

    Args:
        kind: parts, joined by +.
        q: [b h q d].
        k: [b g k d].
        v: [b g k e].
        given: what each part has learned, `part.name`; `mixture` [parts], of whose softmax the shares are.
        key_mask: [b k].
        causal: whether a query sees no later key.
        q_start: the position of the first query.
    """
    batch, heads, n_q, _ = q.shape
    group, n_k = heads // k.shape[1], k.shape[2]
    parts = kind.split("+")
    shares = given["mixture"].exp() / given["mixture"].exp().sum() if "mixture" in given else q.new_ones(1)
    learned = [
        {key.split(".")[-1]: value for key, value in given.items() if key.split(".")[-2:-1] == [part]} for part in parts
    ]
    out = []
    for example in range(batch):
        for head in range(heads):
            keys, values = k[example, head // group], v[example, head // group]
            for i in range(n_q):
                position = q_start + i
                seen = [
                    j
                    for j in range(n_k)
                    if (key_mask is None or key_mask[example, j]) and (not causal or j <= position)
                ]
                if not seen:
                    out.append(values[:0].sum(0))
                    continue
                logits = sum(
                    share * PARTS[part](q[example, head, i], keys, position, head, own)
                    for share, part, own in zip(shares, parts, learned, strict=True)
                )[seen]
                weights = (logits - logits.max().item()).exp()
                out.append((weights[:, None] * values[seen]).sum(0) / weights.sum())
    # The last terms are for autograd: what is not read has a gradient of zero, and not none.
    nothing = sum(0 * x.sum() for x in (q, k, v, *given.values()))
    return torch.stack(out).view(batch, heads, n_q, -1) + nothing

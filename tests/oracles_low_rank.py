"""Naive float64 formulas of attention over fewer keys: Linformer and memory-compressed attention.

Written from the papers and the design, one number at a time; nothing here imports `saccade`.
"""

import torch
from torch import Tensor

from oracles import repeat_heads


def softmax_mean(scores: Tensor, values: Tensor) -> Tensor:
    """The mean of some values [m, e] under the softmax of their scores [m]; zeros where there are none."""
    if not len(scores):
        return values.sum(0)
    weights = (scores - scores.max().item()).exp()
    return (weights[:, None] * values).sum(0) / weights.sum()


def linformer(q: Tensor, k: Tensor, v: Tensor, e: Tensor, f: Tensor, key_mask: Tensor | None = None) -> Tensor:
    """Wang et al. 2020, equation 7: softmax(Q (E K)^T / sqrt(d)) (F V), row by row.

    `e` and `f` are [key heads, rank, positions]: those of each head, wherever they are shared. Hidden tokens are
    left out of the sums of E K and F V; where nothing is real, the sums are empty and the output is zero.
    """
    batch, heads, _, dim = q.shape
    groups, n_k, width = k.shape[1], k.shape[2], v.shape[3]
    rank = e.shape[1]
    keys, values = q.new_zeros(batch, groups, rank, dim), q.new_zeros(batch, groups, rank, width)
    for example in range(batch):
        real = [j for j in range(n_k) if key_mask is None or key_mask[example, j]]
        for group in range(groups):
            for row in range(rank):
                for j in real:
                    keys[example, group, row] = keys[example, group, row] + e[group, row, j] * k[example, group, j]
                    values[example, group, row] = values[example, group, row] + f[group, row, j] * v[example, group, j]
    keys, values = repeat_heads(keys, heads), repeat_heads(values, heads)
    scores = (q[:, :, :, None] * keys[:, :, None]).sum(-1) / dim**0.5
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    weights = weights / weights.sum(-1, keepdim=True)
    return (weights[..., None] * values[:, :, None]).sum(3)


def strided_convolution(x: Tensor, weight: Tensor, stride: int, real: list[bool]) -> tuple[Tensor, list[bool]]:
    """Liu et al. 2018, section 4.2.3: group j is a sum over taps of the tokens from position stride * j on.

    Args:
        x: [heads, n, d].
        weight: [taps, heads, d, heads, d']: what each channel of each head gives to each channel of each head.
        stride: distance of the groups.
        real: which tokens are. Tokens that are not, or that lie behind the end, add nothing.

    Returns:
        The groups, [m, heads, d'], and which of them hold a real token.
    """
    groups, found = [], []
    for start in range(0, x.shape[1], stride):
        taps = [tap for tap in range(len(weight)) if start + tap < x.shape[1] and real[start + tap]]
        total = x.new_zeros(weight.shape[3], weight.shape[4])
        for tap in taps:
            total = total + (x[:, start + tap, :, None, None] * weight[tap]).sum((0, 1))
        groups.append(total)
        found.append(bool(taps))
    return torch.stack(groups) if groups else x.new_zeros(0, *weight.shape[3:]), found


def compressed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_weight: Tensor,
    value_weight: Tensor,
    stride: int,
    null_key: Tensor | None = None,
    key_mask: Tensor | None = None,
    causal: bool = False,
    q_start: int = 0,
) -> Tensor:
    """Liu et al. 2018, section 4.2.3: softmax over the groups of a strided convolution, query by query.

    Causally a query sees the groups whose last tap stands at or before it. Groups without a real token are hidden.
    `null_key` [heads, d] is one more key that every query sees; its value is zero.
    """
    batch, heads, n_q, dim = q.shape
    group, width = heads // k.shape[1], v.shape[3]
    out = []

    def last(j: int) -> int:
        return stride * j + len(key_weight) - 1

    for example in range(batch):
        real = [True] * k.shape[2] if key_mask is None else key_mask[example].tolist()
        keys, shown = strided_convolution(k[example], key_weight, stride, real)
        values, _ = strided_convolution(v[example], value_weight, stride, real)
        for head in range(heads):
            own = head // group
            for i in range(n_q):
                seen = [j for j, real in enumerate(shown) if real and (not causal or last(j) <= q_start + i)]
                met, taken = keys[seen, own], values[seen, own]
                if null_key is not None:
                    met, taken = torch.cat([met, null_key[own, None]]), torch.cat([taken, v.new_zeros(1, width)])
                out.append(softmax_mean((q[example, head, i] * met).sum(1) / dim**0.5, taken))
    # The last term is for autograd: where nothing is seen, gradients are zero, and not missing.
    return torch.stack(out).view(batch, heads, n_q, width) + 0 * v.sum()

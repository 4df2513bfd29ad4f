"""Attention to check, written here from the definition and not from the package: right ones and leaking ones.

Every leak is one that a real library has or had; the comment of each says which.
"""

import math

import torch
from torch import nn


def visible(q, k, key_mask=None, causal=False, diagonal=0):
    n_q, n_k = q.shape[2], k.shape[2]
    allowed = torch.ones(q.shape[0], 1, n_q, n_k, dtype=torch.bool)
    if key_mask is not None:
        allowed = allowed & key_mask[:, None, None]
    return allowed & torch.ones(n_q, n_k, dtype=torch.bool).tril(diagonal) if causal else allowed


def weights(q, k, allowed):
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~allowed, -torch.inf)
    empty = ~allowed.any(-1, keepdim=True)
    return scores.masked_fill(empty, 0).softmax(-1).masked_fill(empty, 0)


def hide(tensor, key_mask):
    return tensor if key_mask is None else tensor.masked_fill(~key_mask[:, None, :, None], 0)


def right(q, k, v, key_mask=None, causal=False):
    k, v = hide(k, key_mask), hide(v, key_mask)
    return weights(q, k, visible(q, k, key_mask, causal)) @ v


def right_linear(q, k, v, key_mask=None, causal=False):
    k, v = hide(k, key_mask), hide(v, key_mask)
    shared = hide(nn.functional.elu(k) + 1, key_mask)
    scores = (nn.functional.elu(q) + 1) @ shared.mT * visible(q, k, None, causal)
    return scores @ v / (scores.sum(-1, keepdim=True) + 1e-12)


def right_in_float32(q, k, v, key_mask=None, causal=False):
    k, v = hide(k, key_mask), hide(v, key_mask)
    return weights(q.float(), k.float(), visible(q, k, key_mask, causal)).to(q.dtype) @ v


def float32_only(q, k, v, key_mask=None, causal=False):
    assert q.dtype == torch.float32, "expected scalar type Float but found Double"
    return right(q, k, v, key_mask, causal)


def global_maximum(q, k, v, key_mask=None, causal=False):
    # performer-pytorch: the stabiliser of the keys is a maximum over the whole sequence, and eps is added after it,
    # so small that it shows only where later keys are much larger than earlier ones
    projection = torch.randn(q.shape[-1], 17, generator=torch.Generator().manual_seed(3), dtype=q.dtype) / 3
    k, v = hide(k, key_mask), hide(v, key_mask)
    keys = k @ projection
    top = hide(keys, key_mask).amax((-1, -2), keepdim=True)
    keys = (keys - k.square().sum(-1, keepdim=True) / 18 - top).exp() + 1e-13
    scores = (q @ projection).exp() @ hide(keys, key_mask).mT * visible(q, k, None, causal)
    total = scores.sum(-1, keepdim=True)
    return scores @ v / total.masked_fill(total == 0, 1)


def sorted_buckets(q, k, v, key_mask=None, causal=False):
    # reformer-pytorch, routing-transformer: who shares a bucket depends on every token's rank in the whole sequence
    k, v = hide(k, key_mask), hide(v, key_mask)
    hashes = k[..., 0] if key_mask is None else k[..., 0].masked_fill(~key_mask[:, None], torch.inf)
    bucket = hashes.argsort(stable=True, dim=-1).argsort(dim=-1) // 7
    together = bucket[..., None] == bucket[..., None, :]
    return weights(q, k, visible(q, k, key_mask, causal) & together) @ v


def off_by_one(q, k, v, key_mask=None, causal=False):
    k, v = hide(k, key_mask), hide(v, key_mask)
    return weights(q, k, visible(q, k, key_mask, causal, diagonal=1)) @ v


def causal_by_block(q, k, v, key_mask=None, causal=False):
    # a block-sparse layout that forgets the mask inside the diagonal block
    k, v = hide(k, key_mask), hide(v, key_mask)
    block = torch.arange(q.shape[2]) // 64
    allowed = visible(q, k, key_mask) & ((block[:, None] >= block) if causal else True)
    return weights(q, k, allowed) @ v


def values_masked_only(q, k, v, key_mask=None, causal=False):
    # performer-pytorch, flash-linear-attention #1263: hidden keys stay in the normaliser
    return weights(q, k, visible(q, k, None, causal)) @ hide(v, key_mask)


def mask_ignored(q, k, v, key_mask=None, causal=False):
    # linformer
    return right(q, k, v, None, causal)


def mask_inverted(q, k, v, key_mask=None, causal=False):
    # memory-compressed-attention; torch's MultiheadAttention uses True for "ignore"
    return right(q, k, v, None if key_mask is None else ~key_mask, causal)


def soft_mask(q, k, v, key_mask=None, causal=False):
    # a mask of -100 is added to the scores: enough for common keys and not for large ones
    k, v = (x if key_mask is None else x.nan_to_num(0, 0, 0) for x in (k, v))
    hidden = torch.zeros(()) if key_mask is None else -100.0 * ~key_mask[:, None, None]
    empty = ~visible(q, k, key_mask, causal).any(-1, keepdim=True)
    scores = (q @ k.mT / math.sqrt(q.shape[-1]) + hidden).masked_fill(~visible(q, k, None, causal), -torch.inf)
    return (scores.softmax(-1) @ v).masked_fill(empty, 0)


def centred_over_batch(q, k, v, key_mask=None, causal=False):
    # a batch normalisation of the keys
    k, v = hide(k, key_mask), hide(v, key_mask)
    return weights(q, k - k.mean(0, keepdim=True), visible(q, k, key_mask, causal)) @ v


def zero_times_nan(q, k, v, key_mask=None, causal=False):
    # every additive mask, torch's SDPA included: a weight of 0 times a hidden NaN is NaN
    return weights(q, k, visible(q, k, key_mask, causal)) @ v


def hidden_gradient(q, k, v, key_mask=None, causal=False):
    # scores are masked well, but the hidden key itself is not: 0 times NaN on the way back
    return weights(q, k, visible(q, k, key_mask, causal)) @ hide(v, key_mask)


def empty_is_nan(q, k, v, key_mask=None, causal=False):
    # torch.nn.MultiheadAttention
    k, v = hide(k, key_mask), hide(v, key_mask)
    scores = (q @ k.mT).masked_fill(~visible(q, k, key_mask, causal), -torch.inf)
    return scores.softmax(-1) @ v


def empty_is_uniform(q, k, v, key_mask=None, causal=False):
    # equinox and many more: masked scores are the least number there is, so nothing but them is uniform
    k, v = hide(k, key_mask), v.nan_to_num(0, 0, 0)
    scores = (q @ k.mT).masked_fill(~visible(q, k, key_mask, causal), torch.finfo(q.dtype).min)
    return scores.softmax(-1) @ v


def only_empty_examples_are_zero(q, k, v, key_mask=None, causal=False):
    # the hidden example is thought of, the causal query before the first real token is not
    k, v = hide(k, key_mask), v.nan_to_num(0, 0, 0)
    allowed = visible(q, k, key_mask, causal)
    scores = (q @ k.mT).masked_fill(~allowed, torch.finfo(q.dtype).min)
    return (scores.softmax(-1) @ v).masked_fill(~allowed.any(-1, keepdim=True).any(-2, keepdim=True), 0)


def empty_is_uniform_over_all(q, k, v, key_mask=None, causal=False):
    scores = (q @ k.mT).masked_fill(~visible(q, k, key_mask, causal), torch.finfo(q.dtype).min)
    return scores.softmax(-1) @ v


def empty_gradient_overflows(q, k, v, key_mask=None, causal=False):
    # the sum of no weights is clamped to the least number there is: fine forward, infinite times zero backward
    k, v = hide(k, key_mask), hide(v, key_mask)
    scores = q.sigmoid() @ hide(k.sigmoid(), key_mask).mT * visible(q, k, None, causal)
    return scores @ v / scores.sum(-1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)


def even_only(q, k, v, key_mask=None, causal=False):
    # reformer-pytorch, sinkhorn-transformer: the length must divide by the bucket
    assert q.shape[2] % 2 == 0, "sequence length must be divisible by 2"
    return right(q, k, v, key_mask, causal)


def folded_into_batch(q, k, v, key_mask=None, causal=False):
    # Hugging Face's Nystromformer at one length: half of the sequence ends up in the batch
    out = right(q, k, v, key_mask, causal)
    return out.reshape(-1, out.shape[1], 125, out.shape[3]) if out.shape[2] == 250 else out


def keys_detached(q, k, v, key_mask=None, causal=False):
    return right(q, k.detach(), v, key_mask, causal)


def long_inputs_detached(q, k, v, key_mask=None, causal=False):
    return right(q.detach() if q.shape[2] > 128 else q, k, v, key_mask, causal)


def length_in_scale(q, k, v, key_mask=None):
    # log-n scaling with the padded length
    return right(q * math.log(q.shape[2] + 1), k, v, key_mask)


def length_in_causal_scale(q, k, v, key_mask=None, causal=False):
    return right(q * math.log(q.shape[2] + 1), k, v, key_mask, causal)


def live_length_in_scale(q, k, v, key_mask=None, causal=False):
    # right without causality; with it, later tokens count
    live = torch.full((q.shape[0],), q.shape[2]) if key_mask is None else key_mask.sum(1)
    return right(q * (live + 1.0).log()[:, None, None, None].to(q), k, v, key_mask, causal)


def writes_into_keys(q, k, v, key_mask=None, causal=False):
    if key_mask is not None:
        k.masked_fill_(~key_mask[:, None, :, None], 0)
    return right(q, k, v, key_mask, causal)


def drawn_each_call(q, k, v, key_mask=None, causal=False):
    # performer-pytorch as often misread: new features at every call
    return right(q @ torch.randn(q.shape[-1], q.shape[-1], dtype=q.dtype), k, v, key_mask, causal)


def right_placed(q, k, v, key_mask=None, causal=False, q_start=0):
    k, v = hide(k, key_mask), hide(v, key_mask)
    return weights(q, k, visible(q, k, key_mask, causal, diagonal=q_start)) @ v


def q_start_ignored(q, k, v, key_mask=None, causal=False, q_start=0):
    # torch's is_causal is aligned to the first key, whatever stands before the queries
    return right_placed(q, k, v, key_mask, causal)


def aligned_to_the_end(q, k, v, key_mask=None, causal=False, q_start=0):
    # the last query stands at the last key, wherever q_start says: right as long as no later keys are given
    return right_placed(q, k, v, key_mask, causal, k.shape[2] - q.shape[2])


def leaks_from_1024_on(q, k, v, key_mask=None, causal=False):
    # a table or a kernel that is chosen by the length
    out = right(q, k, v, key_mask, causal)
    return out + 0.01 * v[:, :, -1:] if causal and q.shape[2] >= 1024 else out


def q_start_rounded(q, k, v, key_mask=None, causal=False, q_start=0):
    # a block mask that is sliced by whole tiles while decoding
    return right_placed(q, k, v, key_mask, causal, q_start - q_start % 64 if q.shape[2] < 64 else q_start)


def scaled_by_queries(q, k, v, key_mask=None, causal=False, q_start=0):
    # log-n scaling with the number of queries at hand
    return right_placed(q * math.log(q.shape[2] + 1), k, v, key_mask, causal, q_start)


def tail_of_chunk_lost(q, k, v, key_mask=None, causal=False, q_start=0):
    # a chunk that is no multiple of 4 loses its rest
    whole = q.shape[2] - q.shape[2] % 4
    out = right_placed(q, k, v, key_mask, causal, q_start)
    return out if k.shape[2] == q.shape[2] else torch.cat((out[:, :, :whole], 0 * out[:, :, whole:]), 2)


def windowed(q, k, v, key_mask=None, causal=False, window=5):
    k, v = hide(k, key_mask), hide(v, key_mask)
    n = torch.arange(q.shape[2])
    return weights(q, k, visible(q, k, key_mask, causal) & ((n[:, None] - n).abs() <= window)) @ v


def wide_window(q, k, v, key_mask=None, causal=False):
    # no defect, though short inputs fit into it
    return windowed(q, k, v, key_mask, causal, window=40)


def pooled_far_away(q, k, v, key_mask=None, causal=False):
    # no defect either: a block of 32 is seen token by token, all others as means; every query sees every key
    k, v = hide(k, key_mask), hide(v, key_mask)
    block = torch.arange(q.shape[2]) // 32
    same = (block[:, None] == block).to(q.dtype)
    means = same / same.sum(-1, keepdim=True)
    far, near = weights(q, means @ k, visible(q, k, key_mask, causal)), weights(q, k, visible(q, k, key_mask, causal))
    return (near * same) @ v + (far * (1 - same)) @ means @ v


def order_in_long_inputs(q, k, v, key_mask=None, causal=False):
    # a positional bias that a long-context path adds by mistake, the same for all queries
    shift = torch.linspace(0, 1, k.shape[2], dtype=k.dtype)[:, None] if k.shape[2] > 100 else 0
    return right(q, k + shift, v, key_mask, causal)


def keys_beyond_500_dropped(q, k, v, key_mask=None, causal=False):
    # a buffer of fixed size that nobody checks
    return right(q, k[:, :, :500], v[:, :, :500], None if key_mask is None else key_mask[:, :500], causal)


def hidden_keys_counted(q, k, v, key_mask=None, causal=False):
    # a mask turned into lengths, as every varlen interface wants it: right for padding on the right only
    if key_mask is not None:
        key_mask = torch.arange(k.shape[2]) < key_mask.sum(1, keepdim=True)
    return right(q, k, v, key_mask, causal)


def relu_attention(q, k, v, key_mask=None, causal=False):
    k, v = hide(k, key_mask), hide(v, key_mask)
    return (q @ k.mT).relu() * visible(q, k, key_mask, causal) @ v


def negative_weights(q, k, v, key_mask=None, causal=False):
    # the difference of two softmax maps, scaled to sum to one
    k, v = hide(k, key_mask), hide(v, key_mask)
    allowed = visible(q, k, key_mask, causal)
    return (2 * weights(q, k, allowed) - weights(-q, k, allowed)) @ v


def values_squashed(q, k, v, key_mask=None, causal=False):
    return right(q, k, v.tanh() / math.tanh(1), key_mask, causal)


def normaliser_of_all(q, k, v, key_mask=None, causal=False):
    # performer-pytorch #40: the causal sum is divided by the sum over all keys
    k, v = hide(k, key_mask), hide(v, key_mask)
    return weights(q, k, visible(q, k, key_mask)) * visible(q, k, key_mask, causal) @ v


def last_block_twice(q, k, v, key_mask=None, causal=False):
    # a blocked path that counts the keys of an overlapping last block twice, and only there
    out = right(q, k, v, key_mask, causal)
    return out * 1.5 if q.shape[2] > 512 else out

"""Modules to check, on q, k, v and on x: right ones and leaking ones around the functions of `subjects.py`."""

import torch
from subjects import hide, right, visible, weights
from torch import nn


class OrderInTraining(nn.Module):
    def forward(self, q, k, v, key_mask=None, causal=False):
        position = torch.arange(k.shape[2], dtype=k.dtype)[:, None] / k.shape[2]
        return right(q, k + position if self.training else k, v, key_mask, causal)


class SetAttention(nn.Module):
    """torch's own module on x: no positions, so the order of tokens does not matter."""

    def __init__(self, width):
        super().__init__()
        self.inner = nn.MultiheadAttention(width, 4, batch_first=True)

    def forward(self, x, key_mask=None):
        hidden = None if key_mask is None else ~key_mask
        return self.inner(x, x, x, key_padding_mask=hidden, need_weights=False)[0]


class DenseForGood(nn.Module):
    # Hugging Face's Big Bird: a short input makes the module dense, and it stays so
    def __init__(self):
        super().__init__()
        self.dense = False

    def forward(self, q, k, v, key_mask=None, causal=False):
        n = q.shape[2]
        self.dense |= n < 16
        k, v = hide(k, key_mask), hide(v, key_mask)
        allowed = visible(q, k, key_mask, causal)
        near = (torch.arange(n)[:, None] - torch.arange(n)).abs() < 16
        return weights(q, k, allowed if self.dense else allowed & near) @ v


class LeaksInTraining(nn.Module):
    # Hugging Face's Big Bird sees another pattern in training than in evaluation
    def forward(self, q, k, v, key_mask=None, causal=False):
        return right(q, k, v, key_mask, causal and not self.training)


class Block(nn.Module):
    """A pre-norm Transformer block on x, with biases, dropout and an output projection that starts at zero."""

    def __init__(self, width=24, attention=right):
        super().__init__()
        self.attention = attention
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.drop = nn.Dropout(0.2)
        nn.init.zeros_(self.out.weight)

    def forward(self, x, key_mask=None, causal=False):
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, n, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
        mixed = self.attention(q, k, v, key_mask, causal).transpose(1, 2).reshape(b, n, c)
        return x + self.drop(self.out(mixed))


class BatchNormed(nn.Module):
    # statistics over the batch and over padding, in training
    def __init__(self, width):
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.block = Block(width)

    def forward(self, x, key_mask=None):
        return self.block(self.norm(x.mT).mT, key_mask)

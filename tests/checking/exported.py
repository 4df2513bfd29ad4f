"""Modules for the probe `export`: one that exports, and ones that export wrongly or not at all."""

import torch
from subjects import right
from torch import nn


class Exports(nn.Module):
    def forward(self, q, k, v, key_mask=None, causal=False):
        return right(q, k, v, key_mask, causal)


class FixedLength(nn.Module):
    # what len() gives is a constant in the graph
    def forward(self, q, k, v):
        return right(q, k, v).view(q.shape[0], q.shape[1], len(q[0, 0]), -1)


class FixedScale(nn.Module):
    # a number that follows from the length, taken while tracing
    def forward(self, q, k, v):
        return right(q, k, v) * float(torch.sym_float(len(q[0, 0])))


class LongOnes(nn.Module):
    # a branch on the length: the graph holds the one that was traced
    def forward(self, q, k, v):
        return right(q, k, v) if q.shape[2] > 64 else right(q, k, v) * 2

"""Layers that decode token by token from a cache of keys and values: right ones, and one for each way to go wrong."""

from typing import NamedTuple

import torch
from subjects import hide, right, visible, weights
from torch import nn


class State(NamedTuple):
    k: torch.Tensor
    v: torch.Tensor
    seen: torch.Tensor


class Cached(nn.Module):
    """Causal softmax attention; the methods below are what the wrong ones replace."""

    def __init__(self, heads=2):
        super().__init__()
        self.heads = heads

    def forward(self, q, k, v, key_mask=None, causal=False):
        return right(q, k, v, key_mask, causal)

    def initial_state(self, batch, dtype=None):
        nothing = torch.zeros(batch, self.heads, 0, 8, dtype=dtype)
        return State(nothing, nothing, torch.zeros(batch, 0, dtype=torch.bool))

    def longer(self, k, v, state, key_mask):
        real = torch.ones(k.shape[0], k.shape[2], dtype=torch.bool) if key_mask is None else key_mask
        pairs = zip(state, (hide(k, key_mask), hide(v, key_mask), real), strict=True)
        return State(*(torch.cat(pair, -1 if pair[0].ndim == 2 else -2) for pair in pairs))

    def step(self, q, k, v, state, key_mask=None):
        state = self.longer(k, v, state, key_mask)
        return weights(q, state.k, visible(q, state.k, state.seen)) @ state.v, state

    def prefill(self, q, k, v, key_mask=None):
        return right(q, k, v, key_mask, True), self.longer(k, v, Cached.initial_state(self, len(q), q.dtype), key_mask)


class ForgetsTheOldest(Cached):
    # a ring buffer that is one too small: wrong from token 128 on
    def step(self, q, k, v, state, key_mask=None):
        state = self.longer(k, v, state, key_mask)
        state = State(state.k[:, :, -128:], state.v[:, :, -128:], state.seen[:, -128:])
        return weights(q, state.k, visible(q, state.k, state.seen)) @ state.v, state


class PrefillLosesItsRest(Cached):
    # whole chunks of 64 go into the state, the rest does not
    def prefill(self, q, k, v, key_mask=None):
        n = k.shape[2] - k.shape[2] % 64 if k.shape[2] > 64 else k.shape[2]
        part = None if key_mask is None else key_mask[:, :n]
        state = self.longer(k[:, :, :n], v[:, :, :n], self.initial_state(len(q), q.dtype), part)
        return right(q, k, v, key_mask, True), state


class PrefillSeesTheFuture(Cached):
    def prefill(self, q, k, v, key_mask=None):
        return right(q, k, v, key_mask), super().prefill(q, k, v, key_mask)[1]


class StepForgetsTheMask(Cached):
    def step(self, q, k, v, state, key_mask=None):
        return super().step(q, k, v, state)


class WritesIntoItsState(Cached):
    # a list that grows in place: every beam that shares it sees the others' tokens
    def initial_state(self, batch, dtype=None):
        return [super().initial_state(batch, dtype)]

    def step(self, q, k, v, state, key_mask=None):
        out, state[0] = super().step(q, k, v, state[0], key_mask)
        return out, state

    def prefill(self, q, k, v, key_mask=None):
        out, state = super().prefill(q, k, v, key_mask)
        return out, [state]


class KeepsValuesToItself(Cached):
    # half of the state lives in the module, where no beam search can reorder it
    def step(self, q, k, v, state, key_mask=None):
        n = state.k.shape[2]
        kept = self.kept if n else v[:, :, :0]
        self.kept = torch.cat((kept[:, :, :n], hide(v, key_mask)), 2)
        out, state = super().step(q, k, v, State(state.k, kept[:, :, :n], state.seen), key_mask)
        return out, state

    def prefill(self, q, k, v, key_mask=None):
        self.kept = hide(v, key_mask)
        return super().prefill(q, k, v, key_mask)


class TupleAlone(Cached):
    """No dtype, no mask, no prefill, a plain tuple: a small foreign layer that is right."""

    prefill = None

    def initial_state(self, batch_size):
        return tuple(super().initial_state(batch_size))

    def step(self, q, k, v, state):
        out, state = super().step(q, k, v, State(*state))
        return out, tuple(state)


class OtherStep(Cached):
    def step(self, tokens):
        raise AssertionError("never called")


class NeedsMore(Cached):
    def initial_state(self, batch, length):
        raise AssertionError("never called")


class OtherPrefill(Cached):
    def prefill(self, prompt):
        raise AssertionError("never called")


class NotWritten(Cached):
    def initial_state(self, batch, dtype=None):
        raise NotImplementedError("later")


class NotCausal(Cached):
    def forward(self, q, k, v, key_mask=None):
        return right(q, k, v, key_mask)


class RunningMean(nn.Module):
    """On x, always causal: the mean of all tokens so far."""

    def __init__(self, width):
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, x):
        return self.mix(x.cumsum(1) / torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None])

    def initial_state(self, batch):
        return {"sum": torch.zeros(batch, 1, self.mix.in_features), "count": torch.zeros((), dtype=torch.int64)}

    def step(self, x, state):
        total, count = state["sum"] + x, state["count"] + 1
        return self.mix(total / count), {"sum": total, "count": count}


class RunningMeanOffByOne(RunningMean):
    def step(self, x, state):
        total, count = state["sum"] + x, state["count"] + 1
        return self.mix(total / (count + 1)), {"sum": total, "count": count}

"""Packed sequences, kept apart by `Segments`, equal the same sequences one at a time."""

import pytest
import torch

from saccade.attention import MECHANISMS
from saccade.attention.dispatch import attend
from saccade.attention.patterns import Causal, Full, Local, Segments, Strided
from saccade.nn import Encoder, MultiHeadAttention

LENGTHS = (13, 1, 40, 22)
N = sum(LENGTHS)
PACKED = Segments(torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS)))
PATTERNS = {"all": Full(), "causal": Causal(), "window": Local(5, 2), "window_by_distance": Local(6) | Strided(9)}


def split(x, axis):
    return x.split(LENGTHS, dim=axis)


def with_gradients(function, leaves, upstream):
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


def assert_same(one, other):
    for mine, wanted in zip(one, other, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-12)


def qkv():
    return [torch.randn(2, heads, N, dim, dtype=torch.float64) for heads, dim in ((4, 5), (2, 5), (2, 3), (4, 3))]


def apart(function, axis):
    """Each sequence by itself, the results one after the other."""
    return lambda *tensors: torch.cat(
        [function(*each) for each in zip(*(split(x, axis) for x in tensors), strict=True)], axis
    )


@pytest.mark.parametrize("backend", ["reference", "dense", "blockwise", "pairs", "auto"])
@pytest.mark.parametrize("name", PATTERNS)
def test_attend(name, backend):
    *inputs, upstream = qkv()
    pattern = PATTERNS[name]
    packed = with_gradients(lambda *x: attend(*x, PACKED & pattern, backend=backend), inputs, upstream)
    assert_same(packed, with_gradients(apart(lambda *x: attend(*x, pattern), 2), inputs, upstream))


def test_attend_where_each_example_is_packed_in_its_own_way():
    *inputs, upstream = qkv()
    ids = torch.stack([PACKED.ids, PACKED.ids.flip(0)])
    packed = with_gradients(lambda *x: attend(*x, Segments(ids), backend="blockwise"), inputs, upstream)
    one = with_gradients(apart(lambda *x: attend(*x), 2), [x[:1] for x in inputs], upstream[:1])
    assert_same([x[:1] for x in packed], one)
    flipped = with_gradients(apart(lambda *x: attend(*x), 2), [x[1:].flip(2) for x in inputs], upstream[1:].flip(2))
    assert_same([x[1:].flip(2) for x in packed], flipped)


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_layer(causal):
    *inputs, upstream = qkv()
    packed, alone = (MECHANISMS["sparse"](each).build(4, 5, 2, 3) for each in (PACKED, Full()))
    assert_same(
        with_gradients(lambda *x: packed(*x, causal=causal), inputs, upstream),
        with_gradients(apart(lambda *x: alone(*x, causal=causal), 2), inputs, upstream),
    )


def models(kind, pattern):
    """The same weights, packed and for one sequence."""
    built = []
    for each in (PACKED if pattern == Full() else PACKED & pattern, pattern):
        torch.manual_seed(3)
        model = MultiHeadAttention(8, 4, each) if kind == "attention" else Encoder(8, 4, 2, mechanism=each)
        built.append(model.double())
    return built


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("name", ["all", "window"])
@pytest.mark.parametrize("kind", ["attention", "encoder"])
def test_models(kind, name, causal):
    packed, alone = models(kind, PATTERNS[name])
    x, upstream = (torch.randn(2, N, 8, dtype=torch.float64) for _ in range(2))
    assert_same(
        with_gradients(lambda y: packed(y, causal=causal), [x], upstream),
        with_gradients(apart(lambda y: alone(y, causal=causal), 1), [x], upstream),
    )
    for one, other in zip(packed.parameters(), alone.parameters(), strict=True):
        mine = torch.autograd.grad(packed(x, causal=causal), one, upstream)[0]
        theirs = torch.autograd.grad(apart(lambda y: alone(y, causal=causal), 1)(x), other, upstream)[0]
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-11)

"""What compressed attention promises besides: steps, memory, precision, refusals, pairs."""

import copy

import pytest
import torch
from compressed_cases import either_way, specs
from low_rank_cases import all_gradients, assert_all_same, layer_of
from mechanism_cases import B, D, E, G, H, build, inputs
from streaming_cases import decode, tokens
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import oracles
from saccade.attention import MECHANISMS, attend, to_mechanism
from saccade.attention.patterns import Full


class Largest(TorchDispatchMode):
    """Inside this context, `bytes` is the size of the largest memory that an operation gives back."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        found = [x.untyped_storage().nbytes() for x in tree_leaves(result) if isinstance(x, Tensor)]
        self.bytes = max([self.bytes, *found])
        return result


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 7, 20])
@specs
def test_steps_equal_the_whole_from_any_cut(spec, cut):
    q, k, v = tokens(24)
    layer, key_mask = layer_of(spec), torch.arange(24) % 5 != torch.tensor([[1], [3]])
    for mask in (None, key_mask):
        before = [None if mask is None else mask[:, :cut], None if mask is None else mask[:, cut:]]
        out, state = layer.prefill(*(x[:, :, :cut] for x in (q, k, v)), before[0])
        rest, _ = decode(layer, *(x[:, :, cut:] for x in (q, k, v)), before[1], state)
        whole = layer(q, k, v, mask, causal=True)
        torch.testing.assert_close(torch.cat([out, rest], 2), whole, rtol=0, atol=1e-12)


@specs
def test_a_state_holds_finished_groups_and_the_tokens_that_are_left(spec):
    layer, batch = layer_of(spec), 3
    stride, kernel = layer.spec.stride, layer.spec.taps
    for n in (0, 1, 2, 3, 22, 60):
        state = layer.prefill(*tokens(n, batch=batch))[1]
        groups = len(range(kernel - 1, n, stride))
        kept = groups + n - stride * groups
        assert state.key_mask.shape == (batch, groups)
        assert sum(leaf.numel() for leaf in state) == batch * kept * (G * (D + E) + 1)


def test_a_state_that_does_not_belong_is_refused(unchecked):
    layer = build(MECHANISMS["compressed"]())
    q, k, v = tokens(1, torch.float32)
    state = layer.initial_state(B)
    with pytest.raises(TypeError, match="state must be a CompressedState from initial_state, prefill or step"):
        layer.step(q, k, v, ())
    with pytest.raises(ValueError, match=r"state\.rest_keys must be of shape"):
        layer.step(q, k, v, state._replace(rest_keys=state.rest_keys[:1]))
    with pytest.raises(ValueError, match="k of a step must be one token long, got 2"):
        layer.step(q, *(x.expand(-1, -1, 2, -1) for x in (k, v)), state)


@pytest.mark.parametrize("n", [100, 700])
def test_chunks_of_work_give_what_the_whole_gives(n):
    """Under a mask the causal form goes by tiles: many of them, and still the same."""
    q, k, v, upstream = inputs(n, n)
    layer = layer_of("compressed")
    seen = torch.arange(n)[:, None] >= 3 * torch.arange(-(-n // 3)) + 2
    key_mask = (torch.arange(n) // 3) % 7 != torch.tensor([[2], [5]])

    def plain(q, k, v, named, key_mask=None):
        keys, values, shown = layer._compress(k, v, key_mask, -(-n // 3))
        keys, values, shown = layer._with_null(keys, values, shown)
        allowed = torch.nn.functional.pad(seen, (1, 0), value=True)
        allowed = allowed if shown is None else allowed & shown[:, None, None]
        return oracles.attention(q, keys, values, allowed)

    for mask in (None, key_mask):
        hidden = torch.zeros(B, n, dtype=torch.bool) if mask is None else ~mask
        clean = [q, *(x.masked_fill(hidden[:, None, :, None], 0) for x in (k, v))]
        wanted = all_gradients(lambda *x, m=mask: plain(*x, m), clean, {}, upstream)
        actual = all_gradients(lambda *x, m=mask: layer(*x[:3], m, causal=True), clean, {}, upstream)
        for name in ("k", "v"):
            wanted[name] = wanted[name].masked_fill(hidden[:, None, :, None], 0)
        assert_all_same(actual, wanted, 1e-11)


@either_way
def test_no_array_over_pairs_is_made(unchecked, causal):
    n = 3000
    q, k, _, _ = inputs(n, n, torch.float32, batch=1)
    layer, v = MECHANISMS["compressed"]().build(H, D, G), k.clone()
    key_mask = torch.arange(n)[None] % 50 > 10
    with torch.no_grad(), Largest() as seen:
        layer(q, k, v, key_mask, causal)
    assert seen.bytes < 4 * n * (n // 3) / 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@either_way
def test_low_precision_is_that_of_plain_products(dtype, causal):
    n = 600
    q, k, v, _ = inputs(n, n, dtype)
    layer = build(MECHANISMS["compressed"](null=False))
    wanted = copy.deepcopy(layer).double()(q.double(), k.double(), v.double(), causal=causal)
    keys, values = (
        torch.nn.functional.conv1d(x.transpose(2, 3).flatten(1, 2), w.to(dtype), stride=3, groups=G)
        .unflatten(1, (G, -1))
        .transpose(2, 3)
        .repeat_interleave(H // G, 1)
        for x, w in ((k, layer.key_weight), (v, layer.value_weight))
    )
    seen = torch.arange(n)[:, None] >= 3 * torch.arange(n // 3) + 2 if causal else torch.ones(n, n // 3).bool()
    plain = (q @ keys.mT / D**0.5).masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num() @ values
    out = layer(q, k, v, causal=causal)
    assert out.dtype == dtype
    assert (out.double() - wanted).abs().max() <= 2 * (plain.double() - wanted).abs().max()


@either_way
def test_gradcheck(causal):
    q, k, v, _ = inputs(7, 8, batch=1)
    layer, mask = layer_of("compressed(stride=2)"), torch.arange(8)[None] != 5
    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]
    assert torch.autograd.gradcheck(
        lambda *qkv: layer(*qkv, key_mask=mask, causal=causal, q_start=1), leaves, fast_mode=True
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride must be a whole number, at least 1, got 0"),
        ({"stride": True}, "stride must be a whole number, at least 1, got True"),
        ({"stride": 2.5}, "stride must be a whole number, at least 1, got 2.5"),
        ({"stride": "a"}, "stride must be a whole number, at least 1, got 'a'"),
        ({"kernel": 2}, "kernel must be a whole number, at least the stride of 3, or None, got 2"),
        ({"kernel": "a"}, "kernel must be a whole number, .*got 'a'"),
        ({"groups": 2}, "groups must be 'heads' or 1, got 2"),
        ({"groups": True}, "groups must be 'heads' or 1, got True"),
        ({"groups": "head"}, "groups must be 'heads' or 1, got 'head'"),
        ({"null": 1}, "null must be True or False, got 1"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        MECHANISMS["compressed"](**options)


@specs
@either_way
@pytest.mark.parametrize(("n_q", "n_k"), [(13, 13), (1, 1), (5, 13), (40, 13)], ids=str)
def test_pairs_are_counted_exactly(spec, causal, n_q, n_k):
    mechanism = to_mechanism(spec)
    stride, kernel = mechanism.stride, mechanism.taps
    groups, null = -(-n_k // stride), int(mechanism.null)
    wanted = 0
    for i in range(n_q):
        finished = sum(stride * j + kernel - 1 <= i for j in range(groups)) if causal else groups
        # Queries that see nothing but the null key get zeros without being computed, but for those of the first step.
        wanted += finished + null if finished or not causal or i > mechanism.first_place - 1 else 0
    cost = mechanism.cost(n_q, n_k, H, D, value_dim=E, causal=causal)
    assert cost.pairs == H * wanted
    assert cost.computed >= cost.flops


def test_it_is_dense_attention_over_a_third_of_the_keys():
    q, k, v, _ = inputs(300, 300)
    layer = layer_of("compressed(null=False)")
    keys, values, _ = layer._compress(k, v, None, 100)
    assert torch.equal(layer(q, k, v), attend(q, keys, values, Full()))

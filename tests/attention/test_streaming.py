"""Streaming: steps equal the whole causal form, in values, gradients and masks; states are values of a stated size."""

import math
from contextlib import nullcontext

import pattern_cases
import pytest
import torch
from hypothesis import given
from streaming_cases import PATTERNS_KEPT, SIZES, SPECS, B, E, H, build, decode, key_masks, numbers, tokens
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saccade.attention import reorder, to_mechanism
from saccade.attention.mechanisms._key_values import kept

names = pytest.mark.parametrize("name", SPECS)


def assert_equal(actual, wanted, tolerance=1e-10):
    torch.testing.assert_close(actual, wanted, rtol=0, atol=tolerance)


def snapshot(state):
    return [leaf.clone() for leaf in state]


LONG = dict.fromkeys(("full", "linear", "rfa", "self", "local", "local_long", "sinks", "longformer"), 2000)
LONG |= dict.fromkeys(
    ("longformer_positions", "strided", "sparse_transformer", "big_bird", "big_bird_heads", "routing"), 300
)


@pytest.mark.parametrize("name", LONG)
def test_two_thousand_steps_equal_the_whole(unchecked, name):
    """Fewer where a step looks at its pattern: those take longer."""
    q, k, v = (x[:1, :2, :, :3] for x in tokens(LONG[name]))
    layer = SPECS[name].build(heads=2, head_dim=3)
    with torch.no_grad():
        assert_equal(decode(layer, q, k, v)[0], layer(q, k, v, causal=True))


@names
@pytest.mark.parametrize("mask", ["none", "holes", "left", "empty"])
def test_steps_equal_the_whole_under_every_mask(name, mask):
    n = 50
    q, k, v = tokens(n)
    key_mask = key_masks(n)[mask]
    layer = build(name)
    out, _ = decode(layer, q, k, v, key_mask)
    assert_equal(out, layer(q, k, v, key_mask, causal=True))
    if mask == "empty":
        assert not out[0].any()


@names
@pytest.mark.parametrize("mask", ["none", "holes"])
def test_steps_go_on_behind_a_prefill_of_any_length(name, mask):
    n = 45
    q, k, v = tokens(n)
    key_mask = key_masks(n)[mask]
    layer = build(name)
    whole, states = layer(q, k, v, key_mask, causal=True), [layer.initial_state(B, q.dtype)]

    def span(start, end):
        mask = None if key_mask is None else key_mask[:, start:end]
        return *(x[:, :, start:end] for x in (q, k, v)), mask

    for i in range(n):
        states.append(decode(layer, *span(i, i + 1), states[-1])[1])
    for cut in (0, 1, 6, 33, n):
        out, state = layer.prefill(*span(0, cut))
        for leaf, wanted in zip(state, states[cut], strict=True):
            assert_equal(leaf, wanted)
        rest, _ = decode(layer, *span(cut, cut + 8), state)
        assert_equal(torch.cat([out, rest], 2), whole[:, :, : cut + 8])


@names
def test_steps_equal_the_whole_in_single_precision(unchecked, name):
    q, k, v = tokens(200, torch.float32)
    layer = build(name)
    with torch.no_grad():
        assert_equal(decode(layer, q, k, v)[0], layer(q, k, v, causal=True), 1e-4)


@names
def test_a_state_in_low_precision_is_single(name):
    q, k, v = tokens(60, torch.bfloat16)
    layer = build(name)
    out, state = decode(layer, q, k, v)
    prefilled = layer.prefill(q, k, v)[1]
    wanted = layer(*(tensor.double() for tensor in (q, k, v)), causal=True)
    assert out.dtype == torch.bfloat16
    for leaf in (*state, *prefilled, *layer.initial_state(1, torch.bfloat16), *layer.initial_state(1)):
        assert leaf.dtype in (torch.float32, torch.bool, torch.int32)
    # Single precision inside: nothing is lost but in the rounding of the output itself.
    assert (out.double() - wanted).abs().max() <= 2**-8 * wanted.abs().max()


@names
def test_autocast_does_not_reach_the_state(name):
    q, k, v = tokens(20, torch.float32)
    layer = build(name)
    wanted = decode(layer, q, k, v)
    with torch.autocast("cpu", torch.bfloat16):
        actual = decode(layer, q, k, v)
        prefilled = layer.prefill(q, k, v)
    assert torch.equal(actual[0], wanted[0])
    assert all(torch.equal(*pair) for pair in zip(actual[1], wanted[1], strict=True))
    assert all(leaf.dtype in (torch.float32, torch.bool, torch.int32) for leaf in prefilled[1])


@names
@pytest.mark.parametrize("cut", [0, 17])
def test_what_is_hidden_enters_no_state_output_or_gradient(name, cut):
    n = 40
    poison = torch.tensor([math.nan, math.inf], dtype=torch.float64)[torch.arange(n) % 2, None]
    q, k, v = tokens(n)
    key_mask = key_masks(n)["holes"]
    hidden = ~key_mask[:, None, :, None]
    leaves = [x.requires_grad_() for x in (q, *(torch.where(hidden, poison, x) for x in (k, v)))]
    layer = build(name)
    before, state = layer.prefill(*(x[:, :, :cut] for x in leaves), key_mask[:, :cut])
    after, state = decode(layer, *(x[:, :, cut:] for x in leaves), key_mask[:, cut:], state)
    out = torch.cat([before, after], 2)
    gradients = torch.autograd.grad(out.sum(), leaves, materialize_grads=True)
    assert_equal(out, layer(q, k, v, key_mask, causal=True))
    assert all(x.isfinite().all() for x in (*state, *gradients))
    assert not any(gradient.masked_select(hidden).any() for gradient in gradients[1:])


@names
def test_gradients_through_steps_equal_those_of_the_whole(name):
    n = 40
    leaves = [x.requires_grad_() for x in tokens(n)]
    key_mask = key_masks(n)["left"]
    upstream = torch.randn(B, H, n, E, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    layer = build(name)
    wanted = torch.autograd.grad(layer(*leaves, key_mask, causal=True), leaves, upstream, materialize_grads=True)
    stepped, _ = decode(layer, *leaves, key_mask)
    for actual, whole in zip(
        torch.autograd.grad(stepped, leaves, upstream, materialize_grads=True), wanted, strict=True
    ):
        assert_equal(actual, whole)


@names
def test_beams_are_reordered_copied_and_dropped(name):
    """Beams that go on from chosen examples equal the whole form of the chosen beginnings with the new ends."""
    cut, n = 20, 45
    first, then = tokens(n, batch=3), tokens(n, batch=4, seed=5)
    chosen = torch.tensor([2, 0, 2, 1])
    layer = build(name)
    _, state = layer.prefill(*(x[:, :, :cut] for x in first))
    out, _ = decode(layer, *(x[:, :, cut:] for x in then), state=reorder(state, chosen))
    joined = [torch.cat([a[chosen, :, :cut], b[:, :, cut:]], 2) for a, b in zip(first, then, strict=True)]
    assert_equal(out, layer(*joined, causal=True)[:, :, cut:])


@names
def test_a_step_leaves_its_state_and_inputs_as_they_were(name):
    q, k, v = tokens(30)
    layer = build(name)
    _, state = decode(layer, q, k, v)
    before, inputs = snapshot(state), [x.clone() for x in (q, k, v)]
    # Two beams branch from one state; each is what it would be alone.
    for seed in (11, 12):
        branch = tokens(9, seed=seed)
        out, _ = decode(layer, *branch, state=state)
        whole = layer(*(torch.cat(pair, 2) for pair in zip((q, k, v), branch, strict=True)), causal=True)
        assert_equal(out, whole[:, :, 30:])
        assert all(torch.equal(*pair) for pair in zip(state, before, strict=True))
    assert all(torch.equal(*pair) for pair in zip((q, k, v), inputs, strict=True))


@names
def test_a_state_shares_no_memory_with_what_it_was_made_from(name):
    q, k, v = tokens(5)
    layer = build(name)
    for n in (1, 5):
        keys, values, mask = k[:, :, :n].clone(), v[:, :, :n].clone(), torch.ones(B, n, dtype=torch.bool)
        states = [layer.prefill(q[:, :, :n], keys, values, mask)[1]]
        if n == 1:
            states.append(layer.step(q[:, :, :1], keys, values, layer.initial_state(B, q.dtype), mask)[1])
        before = [snapshot(state) for state in states]
        for tensor in (keys, values, mask):
            tensor.zero_()
        for state, kept_before in zip(states, before, strict=True):
            assert all(torch.equal(*pair) for pair in zip(state, kept_before, strict=True))


@names
def test_state_sizes_are_those_that_are_stated(name):
    n = 60
    layer = build(name)
    claims = SPECS[name].claims
    assert claims.streaming
    assert claims.state_size == SIZES.get(name, "O(n)")
    state = layer.initial_state(B, torch.float64)
    for i in range(n):
        q, k, v = tokens(1, seed=i)
        _, state = layer.step(q, k, v, state)
        assert all(leaf.shape[0] == B for leaf in state)
        wanted = numbers(name, i + 1)
        assert sum(leaf.numel() for leaf in state) == B * wanted
        # Counted in memory, too: a view would hold on to all that it was cut from.
        assert sum(leaf.untyped_storage().size() // leaf.itemsize for leaf in state) == B * wanted
    _, prefilled = layer.prefill(*tokens(n))
    assert [leaf.shape for leaf in prefilled] == [leaf.shape for leaf in state]
    assert sum(leaf.untyped_storage().size() // leaf.itemsize for leaf in prefilled) == B * wanted


class Work(TorchDispatchMode):
    """Inside this context, `numbers` counts what operations read and write. Views read and write nothing."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        read, written = ([x for x in tree_leaves(side) if isinstance(x, Tensor)] for side in (args, result))
        sources = {x.untyped_storage().data_ptr() for x in read}
        if not all(x.untyped_storage().data_ptr() in sources for x in written):
            self.numbers += sum(x.numel() for x in (*read, *written))
        return result


@pytest.mark.parametrize("name", ["linear", "self", "local", "local_long", "sinks", "longformer", "full"])
def test_twice_the_tokens_cost_windows_and_linear_twice_the_work(unchecked, name):
    layer = build(name)
    q, k, v = tokens(1, torch.float32)
    n = 256 if name == "full" else 2048
    state, work, counts = layer.initial_state(B), Work(), {}
    with torch.no_grad():
        for i in range(1, 2 * n + 1):
            with work if i % 32 == 0 else nullcontext():  # counting takes longer than the step
                _, state = layer.step(q, k, v, state)
            counts[i] = work.numbers
    growth = counts[2 * n] / counts[n]
    assert growth > 3.5 if name == "full" else 1.9 <= growth <= 2.1


@pytest.mark.parametrize("pattern", PATTERNS_KEPT, ids=str)
def test_what_a_window_keeps_is_read_from_its_pattern(pattern):
    first, last = PATTERNS_KEPT[pattern]
    assert kept(pattern.causal()) == (first, last or math.inf)


@given(pattern_cases.patterns)
def test_what_is_kept_is_what_every_query_sees(case):
    """By the oracle's predicate, for any expression: all that is kept is seen, and all that is seen is kept."""
    found = kept(case.pattern.causal())
    for q in range(40 if found else 0):
        for k in range(q + 1):
            assert case.causal(q, k, 40) == (k < found.first or k > q - found.last)


def test_the_claims_of_a_pattern_are_those_of_its_own_window():
    sizes = {
        "local": "O(window)",
        "longformer": "O(window)",
        "full": "O(n)",
        "big_bird": "O(n)",
        "sparse(Local(3, inf))": "O(window)",
        "sparse(Local(inf, 3))": "O(n)",
        "longformer(positions=[4])": "O(n)",
        "linear": "O(1)",
    }
    assert {name: to_mechanism(name).claims.state_size for name in sizes} == sizes


@pytest.mark.parametrize("name", ["linear", "efficient"])
def test_steps_behind_a_million_tokens_stay_true_in_single_precision(unchecked, name):
    """Sums of a million features of about 1 lose small ones, but not as many as would be seen."""
    n, more = 1_000_000, 300
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, n + more, 2, generator=generator) for _ in range(3))
    layer = to_mechanism(name).build(1, 2)
    with torch.no_grad():
        state = layer.prefill(*(x[:, :, :n] for x in (q, k, v)))[1]
        out, state = decode(layer, *(x[:, :, n:] for x in (q, k, v)), state=state)
        wide = [x.double() for x in (q[:, :, -1:], k, v)]
        wanted = layer(*wide, causal=True, q_start=n + more - 1)
    assert all(x.isfinite().all() for x in (out, *state))
    assert (out[:, :, -1:].double() - wanted).abs().max() < 1e-4

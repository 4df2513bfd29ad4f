"""Attention and encoder one token at a time, from states: equal to the causal whole, with all that claims it."""

import pytest
import torch
from stack_cases import SPECS, STREAMING, shaken

from saccade.attention import reorder
from saccade.checking import check
from saccade.nn import AttentionState, Encoder, MultiHeadAttention

WIDTH, HEADS, N = 12, 2, 17


def attention(mechanism="full", **options):
    return shaken(MultiHeadAttention(WIDTH, HEADS, mechanism, **options))


def encoder(mechanism="full", **options):
    return shaken(Encoder(WIDTH, HEADS, 2, 17, mechanism, **options))


def tokens(n=N, batch=2):
    return torch.randn(batch, n, WIDTH, dtype=torch.float64)


def decoded(module, x, first, key_mask=None):
    """All outputs, the first at once and the others one by one, and the last state."""
    if first:
        out, state = module.prefill(x[:, :first], None if key_mask is None else key_mask[:, :first])
    else:
        out, state = x[:, :0], module.initial_state(x.shape[0])
    outs = [out]
    for t in range(first, x.shape[1]):
        out, state = module.step(x[:, t, None], state, None if key_mask is None else key_mask[:, t, None])
        outs.append(out)
    return torch.cat(outs, 1), state


@pytest.mark.parametrize("name", STREAMING)
@pytest.mark.parametrize("first", [0, 7])
def test_steps_equal_the_causal_whole(name, first):
    module, x = encoder(SPECS[name]), tokens()
    out, state = decoded(module, x, first)
    torch.testing.assert_close(out, module(x, causal=True), rtol=0, atol=1e-10)
    assert state.position == N
    assert {layer.position for layer in state.layers} == {N}


@pytest.mark.parametrize("first", [0, 5])
@pytest.mark.parametrize("mechanism", ["full", "linear", "local(left=3)", "big_bird(block=4)", ["full", "linear"]])
def test_extra_tokens_stand_in_front_of_a_stream(mechanism, first):
    module, x = encoder(mechanism, extra_tokens=3), tokens()
    out, state = decoded(module, x, first)
    torch.testing.assert_close(out, module(x, causal=True), rtol=0, atol=1e-10)
    assert state.position == N
    assert {layer.position for layer in state.layers} == {N + 3}


@pytest.mark.parametrize("make", [attention, encoder])
def test_tokens_that_are_not_real_keep_their_places(make):
    module, x = make("local(left=4)"), tokens()
    key_mask = torch.arange(N) % 5 != torch.tensor([[3], [4]])
    out, _ = decoded(module, x.masked_fill(~key_mask[..., None], float("nan")), 6, key_mask)
    torch.testing.assert_close(out[key_mask], module(x, key_mask=key_mask, causal=True)[key_mask], rtol=0, atol=1e-10)


def test_grouped_heads_stream():
    module = shaken(MultiHeadAttention(24, 4, kv_heads=2, value_dim=5))
    x = torch.randn(2, 9, 24, dtype=torch.float64)
    torch.testing.assert_close(decoded(module, x, 3)[0], module(x, causal=True), rtol=0, atol=1e-10)


@pytest.mark.parametrize("extra", [0, 2])
def test_rows_go_on_from_others(extra):
    module, x = encoder(extra_tokens=extra), tokens(7, 3)
    rows = torch.tensor([1, 1, 2, 0])
    _, state = module.prefill(x[:, :6])
    out, _ = module.step(x[rows, 6:], reorder(state, rows))
    torch.testing.assert_close(out, module(x[rows], causal=True)[:, 6:], rtol=0, atol=1e-12)


def numbers(state):
    """How many numbers a state holds."""
    if isinstance(state, torch.Tensor):
        return state.numel()
    return sum(map(numbers, state)) if isinstance(state, tuple) else 0


@pytest.mark.parametrize(
    ("mechanism", "kept"),
    [("linear", 0), ("local(left=4)", 5), ("sparse(pattern=Local(4) | Global(2, rows=False))", 7), ("full", N)],
)
def test_memory_is_what_the_mechanism_promises(mechanism, kept):
    """Constant for `linear`, a window behind its sinks for a pattern, and every token for the dense one."""
    module, head_dim = encoder(mechanism), WIDTH // HEADS
    one = HEADS * head_dim * (head_dim + 1) if not kept else kept * (2 * WIDTH + 1)
    assert numbers(decoded(module, tokens(), 5)[1]) == 2 * 2 * one


def test_the_check_that_users_run_finds_streams(unchecked):
    report = check(attention("linear"), on="x", width=WIDTH, probes=["step"])
    assert [(each.probe, each.status) for each in report.results] == [("step", "passed")]


@pytest.mark.parametrize("make", [attention, encoder])
def test_what_keeps_no_state_says_why(make):
    module, x = make("linformer(rank=4, max_length=60)"), tokens()
    reason = r"linformer.* does not claim streaming: its outputs depend on later tokens, so it has no "
    with pytest.raises(NotImplementedError, match=reason + "initial_state"):
        module.initial_state(2)
    with pytest.raises(NotImplementedError, match=reason + "prefill"):
        module.prefill(x)


def test_states_and_tokens_that_do_not_belong_are_refused(unchecked):
    module, x = attention(), tokens()
    state = module.initial_state(2)
    assert state == AttentionState(state.layer, 0)
    with pytest.raises(TypeError, match=r"state must be an AttentionState from initial_state, .*got 'KeyValues'"):
        module.step(x[:, :1], state.layer)
    with pytest.raises(ValueError, match="q of a step must be one token long, got 2"):
        module.step(x[:, :2], state)
    with pytest.raises(ValueError, match=r"x must be of shape \[batch, length, 12\]"):
        module.prefill(x[..., 1:])
    with pytest.raises(TypeError, match="key_mask must be a boolean tensor"):
        module.prefill(x, torch.ones(2, N))
    stack = encoder()
    with pytest.raises(TypeError, match="state must be a EncoderState from"):
        stack.step(x[:, :1], state)
    begun = stack.initial_state(2)
    with pytest.raises(ValueError, match="state must be of 2 layers, got 1"):
        stack.step(x[:, :1], begun._replace(layers=begun.layers[:1]))
    with pytest.raises(ValueError, match="batch must be a whole number, at least 1, got 0"):
        stack.initial_state(0)

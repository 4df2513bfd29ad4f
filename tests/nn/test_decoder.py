"""The decoder with any mechanism: one token at a time equals the whole, what it may not do is refused."""

import pytest
import torch
from stack_cases import CROSS, SPECS, STREAMING, shaken

from saccade.attention import reorder
from saccade.nn import Decoder, Encoder, Memory, MultiHeadAttention

WIDTH, HEADS, HIDDEN, LAYERS = 12, 2, 17, 2
N, T = 13, 15


def decoder(own="full", across="full", **options):
    return shaken(Decoder(WIDTH, HEADS, LAYERS, HIDDEN, own, across, **options))


def tokens(n, batch=2):
    return torch.randn(batch, n, WIDTH, dtype=torch.float64)


def mask(*lengths, n=N):
    return torch.arange(n) < torch.tensor(lengths)[:, None]


def written(ours, x, state):
    """Every output, one token at a time."""
    outs = []
    for token in x.split(1, dim=1):
        out, state = ours.step(token, state)
        outs.append(out)
    return torch.cat(outs, 1), state


def assert_steps_equal_the_whole(ours, first):
    x, context, context_mask = tokens(T), tokens(N), mask(N, 8)
    memory = ours.memory(context, context_mask)
    if first:
        begun, state = ours.prefill(x[:, :first], memory)
    else:
        begun, state = x[:, :0], ours.initial_state(memory)
    rest, state = written(ours, x[:, first:], state)
    whole = ours(x, context, context_mask=context_mask)
    torch.testing.assert_close(torch.cat([begun, rest], 1), whole, rtol=0, atol=1e-10)
    assert state.position == T


@pytest.mark.parametrize("first", [0, 9])
@pytest.mark.parametrize("name", STREAMING)
def test_steps_equal_the_whole_with_every_streaming_mechanism(name, first):
    assert_steps_equal_the_whole(decoder(own=SPECS[name]), first)


@pytest.mark.parametrize("name", CROSS)
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_steps_equal_the_whole_with_every_mechanism_across(name, norm):
    assert_steps_equal_the_whole(decoder(across=SPECS[name], norm=norm), 4)


def test_each_layer_may_have_mechanisms_of_its_own():
    ours = decoder(["full", "linear"], ["local(left=2)", "full"])
    assert [str(layer.attention.mechanism) for layer in ours.layers] == ["full", "linear"]
    assert [str(layer.cross.mechanism) for layer in ours.layers] == ["local(left=2)", "full"]
    assert_steps_equal_the_whole(ours, 3)


def test_what_is_drawn_is_drawn_anew_for_each_attention():
    ours = decoder("performer(features=4)", "performer(features=4)")
    drawn = [part.layer.directions for layer in ours.layers for part in (layer.attention, layer.cross)]
    assert len({tuple(each.flatten().tolist()) for each in drawn}) == 2 * LAYERS


def test_rows_are_reordered_with_what_they_read():
    ours = decoder()
    x, context, context_mask = tokens(5, 3), tokens(N, 3), mask(N, 8, 3)
    rows = torch.tensor([2, 0, 0, 1])
    _, state = ours.prefill(x[:, :4], ours.memory(context, context_mask))
    out, _ = ours.step(x[rows, 4:], reorder(state, rows))
    wanted = ours(x[rows], context[rows], context_mask=context_mask[rows])[:, 4:]
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-12)


def test_a_step_projects_no_context_again():
    ours = decoder()
    state = ours.initial_state(ours.memory(tokens(N)))
    calls = []
    for layer in ours.layers:
        for name in ("k", "v"):
            layer.cross.projections[name].register_forward_hook(lambda *_: calls.append(1))
    ours.step(tokens(1), state)
    assert not calls


def test_memory_is_what_attention_makes_of_the_context():
    ours = shaken(MultiHeadAttention(WIDTH, HEADS))
    x, context, key_mask = tokens(5), tokens(N), mask(N, 8)
    memory = ours.memory(context, key_mask)
    assert torch.equal(ours(x, memory=memory), ours(x, context, key_mask))
    with pytest.raises(ValueError, match="memory must be in place of context and key_mask"):
        ours(x, context, memory=memory)
    with pytest.raises(ValueError, match="memory must be of as many examples as x, 1, got 2"):
        ours(x[:1], memory=memory)


def test_a_memory_of_another_mechanism_is_refused(unchecked):
    ours = MultiHeadAttention(WIDTH, HEADS)
    with pytest.raises(TypeError, match="memory must be a Memory of k, v, as `memory` returns, got 'Memory'"):
        ours(torch.randn(2, 3, WIDTH), memory=Memory((torch.randn(2, HEADS, 3, 6),), None))
    with pytest.raises(TypeError, match=r"memory must be a Memory of k, v, .*got 'Tensor'"):
        ours(torch.randn(2, 3, WIDTH), memory=torch.randn(2, 3, WIDTH))


@pytest.mark.parametrize("name", [name for name in SPECS if name not in CROSS])
def test_a_mechanism_that_cannot_look_across_is_refused(name):
    with pytest.raises(ValueError, match="cross_mechanism must be one that claims cross attention"):
        decoder(across=SPECS[name])


def test_a_mechanism_that_needs_later_tokens_may_write_all_at_once_only():
    ours = decoder("linformer(rank=4, max_length=60)")
    x, context = tokens(T), tokens(N)
    ours(x, context, causal=False)
    with pytest.raises(ValueError, match=r"causal must be False, as linformer.* does not claim causality"):
        ours(x, context)
    with pytest.raises(NotImplementedError, match=r"linformer.* does not claim streaming: its outputs depend on later"):
        ours.initial_state(ours.memory(context))
    with pytest.raises(NotImplementedError, match="has no prefill"):
        ours.prefill(x, ours.memory(context))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"norm": "per"}, "norm must be one of post, pre, got 'per'"),
        ({"activation": "relo"}, "activation must be one of gelu, relu, got 'relo'"),
        ({"dropout": 1.0}, r"dropout must be at least 0 and below 1, got 1\.0"),
        ({"normalisation": "leyer"}, r"normalisation must be one of .*did you mean 'layer'"),
        ({"mechanism": ["full"]}, "mechanism must be one, or one for each of the 2 layers"),
        ({"cross_mechanism": ["full"]}, "cross_mechanism must be one, or one for each of the 2 layers"),
    ],
)
def test_what_cannot_be_is_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        Decoder(**{"width": WIDTH, "heads": HEADS, "layers": LAYERS, **options})


def test_averages_over_the_batch_know_later_tokens():
    ours = decoder(normalisation="batch")
    assert_steps_equal_the_whole(ours, 4)
    ours.train()(tokens(5), tokens(N), causal=False)
    with pytest.raises(ValueError, match="normalisation must be layer or rms where attention is causal"):
        ours(tokens(5), tokens(N))


def test_inputs_and_states_that_do_not_belong_are_refused(unchecked):
    ours = decoder()
    memory = ours.memory(tokens(N))
    state = ours.initial_state(memory)
    message = r"x must be of shape \[batch, length, 12\] .*got \(2, 5, 11\)"
    for call in (lambda x: ours(x, tokens(N)), lambda x: ours.prefill(x, memory), lambda x: ours.step(x, state)):
        with pytest.raises(ValueError, match=message):
            call(tokens(5)[..., 1:])
    with pytest.raises(ValueError, match=r"context must be of shape \[batch, length, 12\]"):
        ours(tokens(5), tokens(N)[..., 1:])
    with pytest.raises(TypeError, match="state must be a DecoderState from initial_state, prefill or step, got 'Enc"):
        ours.step(tokens(1), Encoder(WIDTH, HEADS, LAYERS).initial_state(2))
    with pytest.raises(ValueError, match="state must be of 2 layers, got 1"):
        ours.step(tokens(1), state._replace(layers=state.layers[:1]))

"""States: reordering, and the errors of layers that decode token by token."""

from typing import NamedTuple

import pytest
import torch
from streaming_cases import B, E, H, build, tokens

from saccade.attention import AttentionLayer, reorder
from saccade.shapes import Tensor

STREAMING = ("full", "local", "strided", "linear")


class Inner(NamedTuple):
    a: Tensor


class Outer(NamedTuple):
    b: Tensor
    inner: Inner


def test_reorder_takes_rows_of_every_leaf_and_of_states_within():
    state = Outer(torch.arange(6).view(3, 2), Inner(torch.arange(3)))
    index = torch.tensor([2, 2, 0, 1])
    again = reorder(state, index)
    assert isinstance(again, Outer)
    assert isinstance(again.inner, Inner)
    assert torch.equal(again.b, state.b[index])
    assert torch.equal(again.inner.a, state.inner.a[index])
    assert reorder(state, index[:0].int()).b.shape == (0, 2)


@pytest.mark.parametrize(
    ("state", "index", "message"),
    [
        (torch.ones(3), torch.tensor([0]), "state must be a decoding state, .*got 'Tensor'"),
        ((torch.ones(3),), torch.tensor([0]), "state must be a decoding state, .*got 'tuple'"),
        (Inner(torch.ones(3)), [0, 1], "index must be a tensor .*got 'list'"),
        (Inner(torch.ones(3)), torch.ones(3), r"index must be .*whole numbers, got '\(3,\) of torch.float32'"),
        (Inner(torch.ones(3)), torch.ones(3) > 0, "index must be .*whole numbers, got .*bool"),
        (Inner(torch.ones(3)), torch.zeros(1, 1).long(), r"index must be a tensor \[b2\] .*got '\(1, 1\)"),
    ],
)
def test_what_cannot_be_reordered_is_refused(unchecked, state, index, message):
    with pytest.raises(TypeError, match=message):
        reorder(state, index)


@pytest.mark.parametrize("name", STREAMING)
@pytest.mark.parametrize("batch", [0, -1, 1.5, True, None])
def test_an_initial_state_is_of_some_examples(unchecked, name, batch):
    with pytest.raises(ValueError, match=f"batch must be a whole number, at least 1, got {batch}"):
        build(name).initial_state(batch)


@pytest.mark.parametrize("name", STREAMING)
def test_an_initial_state_is_where_and_what_is_asked_for(unchecked, name):
    layer = build(name)
    with pytest.raises(ValueError, match=r"dtype must be floating point, got torch\.int64"):
        layer.initial_state(2, torch.int64)
    assert {leaf.dtype for leaf in layer.initial_state(2)} <= {torch.float32, torch.bool}
    assert {leaf.dtype for leaf in layer.initial_state(2, torch.float64)} <= {torch.float64, torch.bool}
    assert all(leaf.device.type == "meta" for leaf in layer.initial_state(2, device="meta"))


ONE, TWO = (dict(zip("qkv", tokens(n), strict=True)) for n in (1, 2))
OTHER_BATCH = dict(zip("qkv", tokens(1, batch=3), strict=True))
SINGLE = {name: tensor.float() for name, tensor in ONE.items()}
BAD_STEPS = {
    "two_tokens": (TWO, ValueError, "q of a step must be one token long, got 2"),
    "no_token": ({"q": ONE["q"][:, :, :0]}, ValueError, "q of a step must be one token long, got 0"),
    "two_keys": (TWO | {"q": ONE["q"]}, ValueError, "k of a step must be one token long, got 2"),
    "axes": ({"q": ONE["q"][0]}, ValueError, r"q must be of shape \[b h q d\]"),
    "two_values": ({"v": TWO["v"]}, ValueError, "v's heads and length must be"),
    "mask_shape": ({"key_mask": torch.ones(B, 2) > 0}, ValueError, r"key_mask must be of shape .*\(2, 1\)"),
    "mask_float": ({"key_mask": torch.ones(B, 1)}, TypeError, "key_mask must be a boolean tensor"),
    "batch": (OTHER_BATCH, ValueError, r"state\.\w+ must be of shape \(3, 3, .*got '\(2, 3, "),
    "dtype": (SINGLE, ValueError, r"state\.\w+ must be .* torch.float32 on cpu, got .*torch.float64"),
    "key_heads": ({"k": ONE["k"][:, :2], "v": ONE["v"][:, :2]}, ValueError, r"state\.\w+ must be of shape \(2, 2, "),
    "value_dim": ({"v": ONE["v"][..., :4]}, ValueError, r"state\.\w+ must be of shape .*4\)"),
    "elsewhere": ({x: ONE[x].to("meta") for x in "qkv"}, ValueError, r"state\.\w+ must be .* on meta, got .* on cpu"),
    "no_state": ({"state": None}, TypeError, "state must be a .* from initial_state, prefill or step, got 'NoneType'"),
    "plain_tuple": ({"state": (1, 2)}, TypeError, "state must be a .*got 'tuple'"),
    "foreign_state": ({"state": Inner(ONE["q"])}, TypeError, "state must be a .*got 'Inner'"),
}


@pytest.mark.parametrize("name", STREAMING)
@pytest.mark.parametrize("case", BAD_STEPS)
def test_what_is_no_step_is_refused(unchecked, name, case):
    changes, error, message = BAD_STEPS[case]
    layer = build(name)
    _, state = layer.prefill(*tokens(4))
    with pytest.raises(error, match=message):
        layer.step(**ONE | {"state": state} | changes)


@pytest.mark.parametrize("name", STREAMING)
def test_a_good_step_is_taken(name):
    """Otherwise everything above could be refused for one and the same reason."""
    layer = build(name)
    out, _ = layer.step(**ONE, state=layer.prefill(*tokens(4))[1], key_mask=torch.ones(B, 1) > 0)
    assert out.shape == (B, H, 1, E)


@pytest.mark.parametrize("name", STREAMING)
def test_a_prefill_is_of_the_same_tokens(unchecked, name):
    q, k, v = tokens(5)
    with pytest.raises(ValueError, match="k of a prefill must be as long as q, 4, got 5"):
        build(name).prefill(q[:, :, :4], k, v)
    with pytest.raises(TypeError, match="q must be a tensor"):
        build(name).prefill(None, k, v)


class Still(AttentionLayer):
    def forward(self, q, k, v, key_mask=None, causal=False, q_start=0):
        return q


def test_a_layer_without_steps_says_so():
    for method, given in (("initial_state", [2]), ("prefill", tokens(3)), ("step", [*tokens(1), None])):
        with pytest.raises(NotImplementedError, match=f"Still does not claim streaming: it has no {method}"):
            getattr(Still(), method)(*given)


class Placed(NamedTuple):
    inner: tuple[Inner, ...]
    key_mask: Tensor | None
    position: int


def test_what_is_one_for_all_rows_stays():
    state = Placed((Inner(torch.arange(3)), Inner(torch.arange(3, 6))), None, 7)
    again = reorder(state, torch.tensor([2, 0]))
    assert again[1:] == (None, 7)
    assert [inner.a.tolist() for inner in again.inner] == [[2, 0], [5, 3]]

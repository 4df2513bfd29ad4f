import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import oracles_positions as oracles
from saccade.attention.patterns import Causal, Full, Global, Local
from saccade.attention.record import Record
from saccade.nn import Encoder, MultiHeadAttention
from saccade.nn.positions import ALiBi
from saccade.nn.positions.alibi import slopes

WIDTH, HEADS = 21, 3


def draws(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 16, 20])
def test_slopes_are_those_of_the_paper(heads):
    torch.testing.assert_close(slopes(heads), torch.tensor(oracles.alibi_slopes(heads), dtype=torch.float64))
    assert slopes(8).tolist() == [2.0**-i for i in range(1, 9)]


def by_hand(layer, x, allowed, **options):
    """The layer with the oracle in the place of its attention."""
    q, k, v = (
        layer.projections[name](x).unflatten(-1, (layer.heads[name], -1)).transpose(1, 2) for name in ("q", "k", "v")
    )
    k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], 1) for part in (k, v))
    return layer.output(oracles.alibi(q, k, v, allowed, **options).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize(
    ("mechanism", "pattern"), [("full", Full()), ("local(left=3)", Local(3)), (Local(2) | Global(1),) * 2]
)
def test_attention_equals_the_oracle(mechanism, pattern, padded, causal):
    layer = MultiHeadAttention(WIDTH, HEADS, mechanism, position="alibi").double()
    x = draws(2, 13, WIDTH)
    key_mask = torch.arange(13) < torch.tensor([13, 6])[:, None] if padded else torch.ones(2, 13, dtype=torch.bool)
    allowed = (pattern.causal() if causal else pattern).dense(13, 13) & key_mask[:, None, None]
    x = x.masked_fill(~key_mask[..., None], 0)
    out = layer(x, key_mask=key_mask if padded else None, causal=causal)
    torch.testing.assert_close(out, by_hand(layer, x, allowed), rtol=0, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("mechanism", ["full", "mixed(parts=[['full', 2], ['local(left=3)', 2]])"])
def test_grouped_heads_and_parts_of_heads_have_their_own_slopes(mechanism, causal):
    layer = MultiHeadAttention(28, 4, mechanism, kv_heads=2, value_dim=5, position="alibi").double()
    x = draws(2, 11, 28)
    allowed = torch.ones(4, 11, 11, dtype=torch.bool)
    if mechanism != "full":
        allowed[2:] = Local(3).dense(11, 11)
    allowed = allowed.tril() if causal else allowed
    torch.testing.assert_close(layer(x, causal=causal), by_hand(layer, x, allowed), rtol=0, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_queries_stand_where_q_start_says(causal):
    layer = MultiHeadAttention(WIDTH, HEADS, position="alibi").double()
    x = draws(2, 11, WIDTH)
    end = layer(x[:, 7:], context=x, causal=causal, q_start=7)
    torch.testing.assert_close(end, layer(x, causal=causal)[:, 7:], rtol=0, atol=1e-11)


@pytest.mark.parametrize("start", [0, 70_000, 2**24 - 40])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-8), (torch.float32, 1e-6)])
def test_no_digits_are_lost_far_from_the_start(start, dtype, near):
    """A window of 40 at the far end of a text: scores are of distances, not of positions."""
    q, k, v = (torch.randn(1, 4, 40, 16).to(dtype) for _ in "qkv")
    placed_q, placed_k = ALiBi(1, 1).on_qk(q, k, start, start, causal=True)
    scores = (placed_q @ placed_k.mT) / 20**0.5
    weights = scores.masked_fill(~Causal().dense(40, 40), -torch.inf).softmax(-1)
    expected = oracles.alibi(q.double(), k.double(), v.double(), Causal().dense(40, 40))
    torch.testing.assert_close((weights.double() @ v.double()), expected, rtol=0, atol=near)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_holds_every_position(dtype):
    """The product of what was rounded, in float64: only the slope and the part of the query are rounded."""
    zeros = torch.zeros(1, 3, 300, 4, dtype=dtype)
    for start in (0, 69_000, 2**24 - 300):
        q, k = (part.double() for part in ALiBi(1, 1).on_qk(zeros, zeros, start, start, causal=True))
        assert q.isfinite().all()
        scores = (q @ k.mT) / 8**0.5
        rise = scores.diff(dim=-1)
        wanted = torch.tensor(oracles.alibi_slopes(3), dtype=torch.float64)[:, None, None].expand_as(rise[0])
        torch.testing.assert_close(rise[0], wanted, rtol=2**-8, atol=0)


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else (out,):
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.untyped_storage().nbytes() // each.element_size())
        return out


@pytest.mark.parametrize("mechanism", ["full", "local(left=8)"])
def test_causally_no_array_of_pairs_is_made(mechanism):
    n = 4096
    layer = MultiHeadAttention(16, 2, mechanism, position="alibi")
    x = torch.randn(1, n, 16, requires_grad=True)
    with Largest() as largest:
        layer(x, causal=True).sum().backward()
    assert largest.numbers < n * n // 8


def test_recorded_weights_fall_with_the_distance():
    encoder = Encoder(16, 2, 1, position=ALiBi(16, 1))
    for weight in encoder.layers[0].attention.projections["q"].parameters():
        torch.nn.init.zeros_(weight)
    for causal in (False, True):
        record = Record("weights")
        encoder(torch.randn(1, 9, 16), causal=causal, record=record)
        (weights,) = record["weights"]
        distance = (torch.arange(9)[:, None] - torch.arange(9)).abs()
        scores = -slopes(2)[:, None, None].float() * distance
        scores = scores.masked_fill(distance.tril(-1).mT > 0, -torch.inf) if causal else scores
        torch.testing.assert_close(weights[0], scores.softmax(-1), rtol=0, atol=1e-5)


def test_a_stream_of_the_layer_is_the_whole():
    """The layer is built for what queries, keys and values are once they are placed."""
    module = MultiHeadAttention(WIDTH, HEADS, "local(left=3)", position="alibi").double()
    x = draws(2, 9, WIDTH)
    parts = {
        name: project(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for name, project in module.projections.items()
    }
    state = module.layer.initial_state(2, torch.float64)
    rows = []
    for place in range(9):
        token = {name: part[:, :, place : place + 1] for name, part in parts.items()}
        out, state = module.layer.step(**module._placed(token, True, place, place), state=state)
        rows.append(module._joined(out))
    torch.testing.assert_close(torch.cat(rows, 1), module(x, causal=True), rtol=0, atol=1e-10)


def test_gradients_are_right():
    layer = MultiHeadAttention(4, 2, position="alibi").double()
    for causal in (False, True):
        x = draws(1, 5, 4).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, causal=causal: layer(x, causal=causal), x)


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_empty_sequences(causal):
    assert MultiHeadAttention(4, 2, position="alibi")(torch.randn(2, 0, 4), causal=causal).shape == (2, 0, 4)

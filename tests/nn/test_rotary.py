import pytest
import torch

import oracles_positions as oracles
from saccade.nn import Encoder, MultiHeadAttention
from saccade.nn.positions import Rotary


def draws(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize(("dim", "start"), [(6, 0), (7, 3), (2, 100_003)])
def test_rotary_is_a_product_of_complex_numbers(dim, start):
    q, k = draws(2, 3, 5, dim), draws(2, 1, 7, dim)
    turned_q, turned_k = Rotary(1, 1).on_qk(q, k, start, 11, causal=False)
    torch.testing.assert_close(turned_q, oracles.rotated(q, start), rtol=0, atol=1e-9)
    torch.testing.assert_close(turned_k, oracles.rotated(k, 11), rtol=0, atol=1e-9)


def test_a_single_number_cannot_be_turned():
    with pytest.raises(ValueError, match="dim of a head must be at least 2 for rotary positions, got 1"):
        MultiHeadAttention(3, 3, position="rotary")(torch.randn(2, 5, 3))


def test_scores_depend_on_the_distance_alone():
    q, k = draws(1, 1, 1, 8).expand(1, 1, 13, 8), draws(1, 1, 1, 8).expand(1, 1, 13, 8)
    turned_q, turned_k = Rotary(1, 1).on_qk(q, k, causal=True)
    scores = (turned_q @ turned_k.mT)[0, 0]
    for distance in range(-12, 13):
        line = scores.diagonal(distance)
        torch.testing.assert_close(line, line[:1].expand_as(line), rtol=0, atol=1e-12)
    assert scores[0].diff().abs().min() > 1e-6
    far_q, far_k = Rotary(1, 1).on_qk(q, k, 1000, 1000, causal=True)
    torch.testing.assert_close(far_q @ far_k.mT, turned_q @ turned_k.mT, rtol=0, atol=1e-9)


def test_half_precision_is_turned_in_single():
    q = draws(1, 2, 200, 16)
    exact = oracles.rotated(q.bfloat16().double()[:, :, -3:], 197)
    turned, _ = Rotary(1, 1).on_qk(q.bfloat16(), q.bfloat16(), causal=True)
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(turned[:, :, -3:].double(), exact, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("mechanism", ["full", "local(left=4)", "linear", "lsh(bucket=4)", "performer"])
def test_weights_of_a_layer_are_of_turned_queries_and_keys(mechanism):
    plain = MultiHeadAttention(12, 3, mechanism).double().eval()
    placed = MultiHeadAttention(12, 3, mechanism, position="rotary").double().eval()
    placed.load_state_dict(plain.state_dict())
    x = draws(2, 11, 12)
    parts = {name: project(x).unflatten(-1, (3, 4)).transpose(1, 2) for name, project in plain.projections.items()}
    turned = {name: oracles.rotated(part.detach(), 0) if name in "qk" else part for name, part in parts.items()}
    expected = plain.output(plain.layer(**{"k": None, **turned}).transpose(1, 2).flatten(2))
    torch.testing.assert_close(placed(x), expected, rtol=0, atol=1e-9)
    assert not torch.allclose(placed(x), plain(x))


def test_queries_stand_where_q_start_says():
    layer = MultiHeadAttention(12, 3, position="rotary").double()
    x = draws(2, 11, 12)
    end = layer(x[:, 7:], context=x, causal=True, q_start=7)
    torch.testing.assert_close(end, layer(x, causal=True)[:, 7:], rtol=0, atol=1e-12)


def test_gradients_reach_the_projections_and_nothing_is_saved():
    encoder = Encoder(12, 3, 2, position=Rotary(12, 1))
    assert not any("position" in name for name in encoder.state_dict())
    encoder(torch.randn(2, 5, 12)).sum().backward()
    assert all(weight.grad.isfinite().all() for weight in encoder.parameters())
    assert encoder(torch.randn(2, 0, 12)).shape == (2, 0, 12)

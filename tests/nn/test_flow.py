import sys

import pytest
import torch

import oracles_positions as oracles
from saccade.nn.positions import Flow
from saccade.nn.positions.flow import STEP, Slope


def test_without_torchdiffeq_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ModuleNotFoundError, match=r"flow positions need torchdiffeq: pip install 'saccade\[flow\]'"):
        Flow(6, 10)


def test_a_length_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="max_length must be at least 1, got 0"):
        Flow(6, 0)


def flow(width=6, longest=10, **options):
    pytest.importorskip("torchdiffeq")
    position = Flow(width, longest, **options).double()
    for weight in position.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    return position


@pytest.mark.parametrize("width", [1, 7])
def test_positions_solve_the_equation_also_past_the_longest(width):
    position = flow(width)
    a, b, c, d = (
        each.detach() for layer in (position.slope.inner, position.slope.outer) for each in (layer.weight, layer.bias)
    )

    def slope(t, p):
        return c @ torch.tanh(a @ torch.cat([p, torch.tensor([t / (10 * STEP)], dtype=torch.float64)]) + b) + d

    expected = oracles.flow(position.start.detach(), slope, 25, STEP, parts=20)
    x = torch.randn(2, 18, width, dtype=torch.float64)
    torch.testing.assert_close(position.on_input(x, 7), x + expected[7:], rtol=0, atol=5e-4)


def test_positions_do_not_depend_on_how_many_there_are():
    position = flow()
    long = position.vectors(40)
    for length in (1, 2, 17):
        torch.testing.assert_close(position.vectors(length), long[:length], rtol=0, atol=1e-5)


def test_the_adjoint_has_the_gradients_of_backpropagation():
    plain, adjoint = flow(), flow(adjoint=True)
    adjoint.load_state_dict(plain.state_dict())
    grads = []
    for position in (plain, adjoint):
        position.on_input(torch.zeros(1, 20, 6, dtype=torch.float64)).square().sum().backward()
        grads.append([weight.grad for weight in position.parameters()])
    for one, other in zip(*grads, strict=True):
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


def test_half_precision_is_solved_in_single():
    position = flow().float()
    exact = position.vectors(20)
    half = position.bfloat16()
    assert half.vectors(20).dtype == torch.float32
    torch.testing.assert_close(half.vectors(20), exact, rtol=0.05, atol=0.05)
    assert half.on_input(torch.zeros(1, 20, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_the_slope_depends_on_time_and_place():
    slope = Slope(3, 2.0)
    p = torch.randn(3)
    assert not torch.allclose(slope(torch.tensor(0.0), p), slope(torch.tensor(1.0), p))
    assert not torch.allclose(slope(torch.tensor(0.0), p), slope(torch.tensor(0.0), 2 * p))

import pytest
import torch

import oracles_positions as oracles
from saccade.nn.positions import Recurrent, sinusoids


@pytest.mark.parametrize("width", [1, 6, 7])
def test_positions_are_what_a_gru_makes_of_sinusoids(width):
    position = Recurrent(width, max_length=2).double()
    cell = position.cell
    parameters = (cell.weight_ih_l0, cell.weight_hh_l0, cell.bias_ih_l0, cell.bias_hh_l0)
    expected = oracles.gru(sinusoids(23, width), *(each.detach() for each in parameters))
    x = torch.randn(2, 12, width, dtype=torch.float64)
    torch.testing.assert_close(position.on_input(x, 11), x + expected[11:], rtol=0, atol=1e-12)


def test_far_positions_still_differ():
    with torch.no_grad():
        vectors = Recurrent(16, 1).vectors(600)
    assert torch.cdist(vectors[500:], vectors[500:]).fill_diagonal_(torch.inf).min() > 0.01


def test_the_network_is_trained():
    position = Recurrent(6, 1)
    position.on_input(torch.zeros(2, 5, 6), start=3).square().sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in position.parameters())


def test_what_is_kept_follows_the_parameters():
    position, x = Recurrent(6, 1).eval(), torch.zeros(1, 5, 6)
    with torch.no_grad():
        before = position.on_input(x)
        assert torch.equal(position.on_input(x[:, :3], 2), before[:, 2:])
        position.cell.bias_hh_l0.data.add_(1)  # by way of `data`, of which autograd hears nothing
        after = position.on_input(x)
        assert not torch.allclose(after, before)
        assert position.double().on_input(x.double()).dtype == torch.float64
    torch.testing.assert_close(position.on_input(x.double()).float(), after)


def test_a_step_makes_few_positions_anew(monkeypatch):
    position, made = Recurrent(6, 1), []
    vectors = Recurrent.vectors
    monkeypatch.setattr(Recurrent, "vectors", lambda self, length: made.append(length) or vectors(self, length))
    with torch.no_grad():
        whole = torch.cat([position.on_input(torch.zeros(1, 1, 6), start) for start in range(200)], 1)
    assert sum(made) < 2 * 256 * 2
    torch.testing.assert_close(whole[0], vectors(position, 200).detach())


def test_what_is_kept_is_neither_saved_nor_copied():
    position = Recurrent(6, 1)
    keys = set(position.state_dict())
    with torch.no_grad():
        position.on_input(torch.zeros(1, 50, 6))
    assert set(position.state_dict()) == keys
    assert position.__getstate__()["_known"] is None

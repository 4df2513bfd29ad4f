import copy
import math

import pytest
import torch

from saccade.nn.positions import POSITIONS, Learned, Position, Sinusoidal, sinusoids


@pytest.mark.parametrize(("length", "width", "start"), [(11, 6, 0), (7, 5, 0), (3, 8, 10_007), (1, 1, 2), (0, 3, 0)])
def test_sinusoids_follow_the_formula_of_the_paper(length, width, start):
    expected = torch.zeros(length, width, dtype=torch.float64)
    for row in range(length):
        for channel in range(width):
            angle = (start + row) / 10_000 ** ((channel - channel % 2) / width)
            expected[row, channel] = math.cos(angle) if channel % 2 else math.sin(angle)
    torch.testing.assert_close(sinusoids(length, width, start), expected, rtol=0, atol=1e-10)


def test_sinusoids_are_added_rounded_once_at_any_length():
    position = Sinusoidal(7, max_length=2)
    x = torch.randn(3, 5_003, 7)
    assert torch.equal(position.on_input(x), x + sinusoids(5_003, 7).float())
    assert torch.equal(position.on_input(x, start=11), x + sinusoids(5_003, 7, 11).float())
    assert position.on_input(x.bfloat16()).dtype == torch.bfloat16
    assert not position.state_dict()


def built(name, *sizes):
    """Any method, unless the library it needs is not there."""
    if name == "flow":
        pytest.importorskip("torchdiffeq")
    return POSITIONS[name](*sizes)


@pytest.mark.parametrize("name", POSITIONS)
def test_the_second_part_of_an_input_equals_the_end_of_the_whole(name):
    position = built(name, 7, 13)
    x = torch.randn(2, 13, 7)
    assert isinstance(position, Position)
    assert torch.equal(position.on_input(x[:, 5:], start=5), position.on_input(x)[:, 5:])
    torch.testing.assert_close(position.on_input(x[:, :5]), position.on_input(x)[:, :5], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_every_position_has_the_dtype_of_what_it_is_added_to(name, dtype):
    position = built(name, 7, 13).to(dtype)
    x, q = torch.randn(2, 5, 7, dtype=dtype), torch.randn(2, 2, 5, 4, dtype=dtype)
    assert position.on_input(x).dtype == dtype
    assert position.on_input(x[:, :0], 4).shape == (2, 0, 7)
    for causal in (False, True):
        placed = position.on_qk(q, q, 3, causal=causal)
        assert [part.dtype for part in placed] == [dtype, dtype]
        bias = position.on_scores(*placed, 3, causal=causal)
        assert bias is None or bias.dtype == dtype
        placed = position.on_qk(q[:, :, :0], q[:, :, :0], causal=causal)
        assert [part.shape for part in placed] == [(2, 2, 0, 4 + position.extra_dims)] * 2


@pytest.mark.parametrize("name", POSITIONS)
def test_every_position_is_loaded_as_it_was_saved(name):
    one, other = built(name, 7, 13), built(name, 7, 13)
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, 5, 7)
    assert torch.equal(one.on_input(x), other.on_input(x))
    assert torch.equal(copy.deepcopy(one).on_input(x), one.on_input(x))


@pytest.mark.parametrize("name", POSITIONS)
def test_hooks_that_are_not_filled_do_nothing(name):
    position = built(name, 7, 13)
    q, k = torch.randn(2, 2, 5, 4), torch.randn(2, 1, 3, 4)
    if not position.in_attention():
        assert position.on_qk(q, k, causal=True) == (q, k)
        assert position.on_scores(q, k, causal=False) is None
    else:
        x = torch.randn(2, 5, 7)
        assert position.on_input(x) is x


def test_learned_positions_are_rows_of_a_trained_table():
    position = Learned(3, max_length=11)
    x = torch.randn(2, 5, 3)
    out = position.on_input(x, start=6)
    assert torch.equal(out, x + position.table[6:])
    out.sum().backward()
    assert torch.equal(position.table.grad, torch.tensor([0.0] * 6 + [2.0] * 5)[:, None].expand(11, 3))


def test_the_learned_table_has_an_end():
    position = Learned(3, max_length=512)
    position.on_input(torch.zeros(1, 512, 3))
    with pytest.raises(ValueError, match=r"length must be at most 512 \(the learned position table\), got 600"):
        position.on_input(torch.zeros(1, 600, 3))
    with pytest.raises(ValueError, match=r"length must be at most 512 .*, got 513"):
        position.on_input(torch.zeros(1, 1, 3), start=512)
    with pytest.raises(ValueError, match="max_length must be at least 1, got 0"):
        Learned(3, max_length=0)


def test_none_adds_nothing():
    x = torch.randn(2, 5, 3)
    assert torch.equal(POSITIONS["none"](3, 5).on_input(x), x)

import math

import pytest
import torch

from saccade.training import accuracy, half_width


def test_accuracy_is_the_share_of_equal_labels():
    assert accuracy(torch.tensor([1, 2, 3, 4, 5]), torch.tensor([1, 0, 3, 4, 0])) == pytest.approx(3 / 5)


def test_accuracy_refuses_what_cannot_be_compared(unchecked):
    with pytest.raises(ValueError, match="predicted must be as long as the 0 labels, got 0"):
        accuracy(torch.tensor([]), torch.tensor([]))
    with pytest.raises(ValueError, match="predicted must be as long as the 1 labels, got 2"):
        accuracy(torch.tensor([1, 1]), torch.tensor([1]))


def test_half_width_solves_wilsons_equation():
    for p, n, z in [(0.5, 100, 1.96), (0.9, 37, 1.0), (0.0, 5, 1.96)]:
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        for end in (centre - half_width(p, n, z), centre + half_width(p, n, z)):
            assert (p - end) ** 2 == pytest.approx(z * z * end * (1 - end) / n, abs=1e-12)


def test_half_width_is_the_standard_error_for_many_examples_and_never_zero():
    assert half_width(0.3, 10**6, z=1.0) == pytest.approx(math.sqrt(0.21 / 10**6), rel=1e-5)
    assert half_width(1.0, 50) > 0.01


def test_half_width_refuses_what_is_no_share():
    with pytest.raises(ValueError, match=r"accuracy must be from 0 to 1, got 1\.5"):
        half_width(1.5, 10)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        half_width(0.5, 0)

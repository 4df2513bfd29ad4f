"""Layers of routing attention, masks and inputs, for its tests."""

import pytest
import torch
from mechanism_cases import B, D, E, G, H

from saccade.attention import MECHANISMS

N = 29


MASKS = {
    "none": None,
    "right": torch.arange(N) < torch.tensor([[N], [N - 11]]),
    "left": torch.arange(N) >= torch.tensor([[11], [0]]),
    "holes": torch.arange(N) % 3 != torch.tensor([[0], [1]]),
    "empty": torch.tensor([[False], [True]]).expand(B, N),
}


causally = pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])


def routing(**options):
    return MECHANISMS["routing"](**options).build(H, D, G, E)

"""The form of Performer that is exported: the same numbers, at any length."""

import pytest
import torch
from mechanism_cases import B, D, E, G, H, inputs

from saccade.attention import MECHANISMS
from saccade.attention.inputs import hide
from saccade.attention.mechanisms._performer.exported import exported


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("mask", ["none", "holes", "empty"])
@pytest.mark.parametrize(("n_q", "q_start"), [(70, 0), (9, 61), (5, 80)])
def test_the_exported_form_gives_the_same(causal, mask, n_q, q_start):
    n = 70
    q, k, v, _ = inputs(n_q, n)
    key_mask = {"none": None, "holes": torch.arange(n) % 7 != torch.tensor([[0], [4]])}.get(
        mask, torch.tensor([[False], [True]]).expand(B, n)
    )
    layer = MECHANISMS["performer"](features=12).build(H, D, G, E).double()
    wanted = layer(q, 3 * k, v, key_mask, causal, q_start)
    found = exported(q, *hide(3 * k, v, key_mask), key_mask, layer.directions, causal, q_start)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)

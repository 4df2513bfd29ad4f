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


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_one_program_serves_every_length(unchecked, causal):
    layer = MECHANISMS["performer"](features=12).build(H, D, G, E).double().eval()
    batch, length = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    given, axes = {}, {}
    for n in (33, 1, 130):
        q, k, v, _ = inputs(n, n)
        given[n] = {"q": q, "k": k, "v": v, "key_mask": torch.arange(n) < torch.tensor([[n], [20]]), "causal": causal}
    for name, x in given[33].items():
        axes[name] = None if name == "causal" else {0: batch, x.ndim - 1 - (x.ndim == 4): length}
    program = torch.export.export(layer, (), given[33], dynamic_shapes=axes).module()
    for call in given.values():
        torch.testing.assert_close(program(**call), layer(**call), rtol=0, atol=1e-12)

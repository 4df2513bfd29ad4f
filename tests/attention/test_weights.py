import pytest
import torch

from saccade.attention import MECHANISMS, to_mechanism
from saccade.attention.weights import implied_weights

B, H, G, D, E = 2, 6, 3, 5, 7


def inputs(queries, keys):
    shapes = {"q": (B, H, queries, D), "k": (B, G, keys, D), "v": (B, G, keys, E)}
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("keys", [1, 7, 23])
def test_weights_times_values_are_the_output(name, causal, keys):
    spec = to_mechanism(name)
    causal = causal and spec.claims.causal
    layer = spec.build(H, D, G, E)
    given = inputs(keys, keys)
    key_mask = torch.arange(keys) < torch.tensor([keys, (keys + 1) // 2])[:, None]
    options = {"key_mask": key_mask, "causal": causal}
    weights = implied_weights(layer, given, **options)
    assert weights.shape == (B, H, keys, keys)
    values = given["v"].repeat_interleave(H // G, dim=1)
    torch.testing.assert_close(weights @ values, layer.for_weights()(**given, **options), rtol=0, atol=1e-10)
    assert (weights[1, :, :, ~key_mask[1]] == 0).all()
    if spec.claims.normalised:
        # A real query sees itself at least; one behind the mask may see nothing.
        sums = weights.sum(-1).mT[key_mask]
        torch.testing.assert_close(sums, torch.ones_like(sums))


def test_a_decoding_step_has_the_last_rows():
    layer = to_mechanism("local(left=3)").build(H, D, G, E)
    given = inputs(11, 11)
    whole = implied_weights(layer, given, causal=True)
    step = implied_weights(layer, {**given, "q": given["q"][:, :, 8:]}, causal=True, q_start=8)
    torch.testing.assert_close(step, whole[:, :, 8:], rtol=0, atol=1e-12)


def test_a_layer_sees_no_values_of_another_dim():
    layer = to_mechanism("full").build(H, D, G, E)
    seen = []
    layer.register_forward_pre_hook(lambda module, given, named: seen.append(named["v"].shape), with_kwargs=True)
    assert implied_weights(layer, inputs(17, 17)).shape == (B, H, 17, 17)
    assert seen == [(B, G, 17, E)] * 3

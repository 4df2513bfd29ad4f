"""Dropout of attention weights: its share, its scale, its independence, and its gradients."""

import pytest
import torch
from attend_cases import BACKENDS, PATTERNS, G, H, got, random_inputs

from saccade import attend

DROPPED = ["full", "causal", "window_global", "big_bird", "three"]


def dropped_weights(name, backend, dropout, n=70, heads=3, batch=5, seed=3):
    """The weights after dropout, and those without, read off with the identity as values."""
    q, k, _, _ = random_inputs(n, n, heads, heads, batch)
    identity = torch.eye(n, dtype=torch.float64).expand(batch, heads, n, n)
    torch.manual_seed(seed)
    dropped = attend(q, k, identity, PATTERNS[name], dropout=dropout, backend=backend)
    return dropped, attend(q, k, identity, PATTERNS[name], backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", DROPPED)
@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_dropout_drops_its_share_of_the_weights_and_scales_the_rest(name, dropout, backend):
    dropped, weights = dropped_weights(name, backend, dropout)
    seen = weights > 0
    kept = dropped != 0
    assert not (kept & ~seen).any()
    torch.testing.assert_close(dropped[kept], weights[kept] / (1 - dropout), rtol=1e-10, atol=1e-12)
    count = int(seen.sum())
    share = 1 - int(kept.sum()) / count
    assert abs(share - dropout) < 5 * (dropout * (1 - dropout) / count) ** 0.5
    assert abs(float(dropped.sum() / weights.sum()) - 1) < 0.05


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", DROPPED)
def test_dropout_is_drawn_for_every_pair_anew(name, backend):
    """Dropped pairs must not repeat over examples, heads, queries, keys or calls."""
    dropped, weights = dropped_weights(name, backend, 0.5)
    kept, seen = dropped != 0, weights > 0
    agreement = {
        "examples": (kept[1:] == kept[:-1])[seen[1:] & seen[:-1]],
        "heads": (kept[:, 1:] == kept[:, :-1])[seen[:, 1:] & seen[:, :-1]],
        "queries": (kept[:, :, 1:] == kept[:, :, :-1])[seen[:, :, 1:] & seen[:, :, :-1]],
        "keys": (kept[..., 1:] == kept[..., :-1])[seen[..., 1:] & seen[..., :-1]],
        "calls": (kept == (dropped_weights(name, backend, 0.5, seed=4)[0] != 0))[seen],
    }
    for axis, same in agreement.items():
        spread = 5 * 0.5 / len(same) ** 0.5
        assert abs(float(same.double().mean()) - 0.5) < spread, axis
    again, _ = dropped_weights(name, backend, 0.5)
    assert torch.equal(again, dropped), "the global generator decides"


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_dropout_draws_nothing(backend):
    before = torch.get_rng_state()
    case = (PATTERNS["window_global"], 63, 63, 0, H, G, "none")
    q, k, v, _ = random_inputs(63, 63)
    out = attend(q, k, v, PATTERNS["window_global"], dropout=0.0, backend=backend)
    assert torch.equal(out, got(*case, backend)[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["full", "window_global", "big_bird_heads"])
def test_gradients_with_dropout_equal_finite_differences(name, backend):
    n = 13
    q, k, v, _ = random_inputs(n, n, heads=4, groups=2, batch=2, dim=3, value_dim=2)
    mask = torch.arange(n)[None] < torch.tensor([[13], [9]])

    def call(q, k, v):
        torch.manual_seed(11)
        return attend(q, k, v, PATTERNS[name], key_mask=mask, dropout=0.3, backend=backend)

    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]
    assert torch.autograd.gradcheck(call, leaves, fast_mode=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backward_with_dropout_leaves_the_generator_where_the_forward_left_it(backend):
    """Whatever the backward draws again must not disturb what training draws next."""
    q, k, v, upstream = random_inputs(70, 70)
    torch.manual_seed(5)
    out = attend(q.requires_grad_(), k, v, PATTERNS["window_global"], dropout=0.4, backend=backend)
    torch.randn(3)
    between = torch.get_rng_state()
    out.backward(upstream)
    assert torch.equal(torch.get_rng_state(), between)

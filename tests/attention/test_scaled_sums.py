"""Causal sums in which each weight has a scale, against the formula written out for all pairs."""

import pytest
import torch

from saccade.attention.mechanisms._feature_map import Sums
from saccade.attention.mechanisms._linear.maps import EluPlusOne
from saccade.attention.mechanisms._scaled_sums import Scales, causal_scaled

M, D, E = 3, 5, 4
PHI = EluPlusOne()


def drawn(n, fade=0.3):
    """Inputs, earlier sums and scales of which rows rise."""
    torch.manual_seed(n)
    q, k, v = (torch.randn(M, n, dim, dtype=torch.float64) for dim in (D, D, E))
    s, z = torch.randn(M, D, E, dtype=torch.float64), torch.rand(M, D, 1, dtype=torch.float64)
    row = torch.rand(M, n, 1, dtype=torch.float64).mul(fade).cumsum(1)
    key, begin = row - torch.rand_like(row), torch.full((M, 1, 1), -0.2, dtype=torch.float64)
    return [x.requires_grad_() for x in (q, k, v, s, z, key, row, begin)]


def phi(x):
    return torch.nn.functional.elu(x) + 1


def written_out(q, k, v, s, z, key, row, begin, real, least):
    """Every pair, every scale."""
    pairs = (phi(q) @ (phi(k) * real).mT * 2 ** (key.mT - row)).tril()
    fade = 2 ** (begin - row)
    total = pairs.sum(-1, keepdim=True) + fade * (phi(q) @ z)
    return (pairs @ v + fade * (phi(q) @ s)) / (total.abs().clamp(min=least) if least else total)


@pytest.mark.parametrize("least", [0.0, 0.05])
@pytest.mark.parametrize("n", [1, 7, 64, 65, 200])
@pytest.mark.parametrize("hides", [False, True])
def test_outputs_and_all_gradients_are_those_of_the_formula(n, least, hides):
    leaves = drawn(n)
    q, k, v, s, z, key, row, begin = leaves
    real = torch.ones(M, n, 1, dtype=torch.float64)
    if hides:
        real[0, : n // 2] = 0
    if least:  # sums of weights of both signs, some of them too small to divide by
        with torch.no_grad():
            z.sub_(0.5).mul_(8)
    out = causal_scaled(q, k, v, real if hides else None, Sums(s, z), (PHI, PHI), Scales(key, row, begin), least)
    wanted = written_out(*leaves, real, least)
    torch.testing.assert_close(out, wanted, rtol=1e-11, atol=1e-11)
    cotangent = torch.randn_like(wanted)
    given = {"allow_unused": True, "materialize_grads": True}
    ours, theirs = (torch.autograd.grad(each, leaves, cotangent, **given) for each in (out, wanted))
    for name, mine, oracle in zip(("q", "k", "v", "s", "z", "key", "row", "begin"), ours, theirs, strict=True):
        torch.testing.assert_close(mine, oracle, rtol=1e-9, atol=1e-9 * float(oracle.abs().max() + 1), msg=name)


def test_scales_may_rise_without_bound():
    q, k, v, s, z, *_ = (x.detach().float() for x in drawn(1000))
    row = torch.arange(1000, dtype=torch.float64)[None, :, None].expand(M, -1, -1) * 50
    out = causal_scaled(q, k, v, None, Sums(s, z), (PHI, PHI), Scales(row, row, row[:, :1]))
    torch.testing.assert_close(out[:, 1:], v[:, 1:], rtol=1e-6, atol=1e-6)


def test_no_number_knows_of_a_later_token():
    q, k, v, s, z, key, row, begin = (x.detach() for x in drawn(150))
    whole = causal_scaled(q, k, v, None, Sums(s, z), (PHI, PHI), Scales(key, row, begin))
    begun = (x[:, :70] for x in (q, k, v))
    first = causal_scaled(*begun, None, Sums(s, z), (PHI, PHI), Scales(key[:, :70], row[:, :70], begin))
    torch.testing.assert_close(whole[:, :70], first, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("n", [1, 64, 200])
def test_the_form_for_export_gives_the_same(n, monkeypatch):
    q, k, v, s, z, key, row, begin = (x.detach() for x in drawn(n))
    real = (torch.arange(n) % 3 > 0).to(q.dtype).expand(M, n)[..., None]
    given = q, k, v, real, Sums(s, z), (PHI, PHI), Scales(key, row, begin)
    wanted = causal_scaled(*given)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(causal_scaled(*given), wanted, rtol=0, atol=1e-12)

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import oracles_positions as oracles
from saccade.nn import NORMS, Encoder, SequenceBatchNorm

WIDTH = 5


def draws(*shape):
    return 3 + 2 * torch.randn(*shape, dtype=torch.float64)


def mask(*lengths, n):
    return torch.arange(n) < torch.tensor(lengths)[:, None]


def norm(**options):
    built = SequenceBatchNorm(WIDTH, **options).double()
    for weight in built.parameters():
        nn.init.normal_(weight)
    return built


def test_training_normalises_over_real_tokens_alone():
    ours, x, key_mask = norm(), draws(3, 7, WIDTH), mask(7, 4, 1, n=7)
    normalised, mean, variance = oracles.batch_norm(x, key_mask, ours.eps)
    dirty = x.masked_fill(~key_mask[..., None], float("nan"))
    out = ours(dirty, key_mask)
    torch.testing.assert_close(out[key_mask], (normalised * ours.weight + ours.bias)[key_mask], rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.mean, 0.1 * mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.variance, 0.9 + 0.1 * variance, rtol=0, atol=1e-12)


def test_without_padding_it_equals_torch():
    ours, x = norm(), draws(3, 7, WIDTH).requires_grad_()
    theirs = nn.BatchNorm1d(WIDTH).double()
    theirs.load_state_dict({"weight": ours.weight, "bias": ours.bias}, strict=False)
    expected = theirs(x.mT).mT
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-10)
    weight = draws(3, 7, WIDTH)
    grads = [torch.autograd.grad((out * weight).sum(), x)[0] for out in (ours(x), expected)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-10)


def test_running_averages_move_by_the_rule():
    ours, mean, variance = norm(momentum=0.7), torch.zeros(WIDTH).double(), torch.ones(WIDTH).double()
    for n in (4, 9, 2):
        x, key_mask = draws(2, n, WIDTH), mask(n, 2, n=n)
        ours(x, key_mask)
        _, new_mean, new_variance = oracles.batch_norm(x, key_mask, 0)
        mean, variance = 0.7 * mean + 0.3 * new_mean, 0.7 * variance + 0.3 * new_variance
    torch.testing.assert_close(ours.mean, mean)
    torch.testing.assert_close(ours.variance, variance)


def test_evaluation_is_of_each_token_alone():
    ours, x, key_mask = norm(), draws(3, 7, WIDTH), mask(7, 4, 1, n=7)
    ours(x, key_mask)
    ours.eval()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    together = ours(x, key_mask)
    expected = (x - ours.mean) / (ours.variance + ours.eps).sqrt() * ours.weight + ours.bias
    torch.testing.assert_close(together[key_mask], expected[key_mask], rtol=0, atol=1e-12)
    assert torch.equal(ours(x[1:2, :2]), together[1:2, :2])
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize("shape", [(2, 4, WIDTH), (2, 0, WIDTH), (0, 4, WIDTH)])
def test_a_batch_without_real_tokens_changes_nothing(shape):
    ours, x = norm(), draws(*shape).requires_grad_()
    out = ours(x, torch.zeros(shape[:2], dtype=torch.bool))
    out.sum().backward()
    assert out.shape == shape
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    assert ours.mean.tolist() == [0] * WIDTH
    assert ours.variance.tolist() == [1] * WIDTH


def test_half_precision_is_summed_in_single():
    """The sum of 4,000 numbers near 300 passes the largest number of fp16 many times over."""
    x = (300 + torch.randn(4, 1000, WIDTH)).half()
    ours = SequenceBatchNorm(WIDTH).half()
    out = ours(x)
    expected, _, variance = oracles.batch_norm(x.double(), torch.ones(4, 1000, dtype=torch.bool), ours.eps)
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.double(), expected, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(ours.variance.double(), 0.9 + 0.1 * variance, rtol=2e-3, atol=0)


def test_it_is_saved_and_loaded():
    ours, other, x = norm(), norm(), draws(2, 5, WIDTH)
    ours(x)
    other.load_state_dict(ours.state_dict())
    assert torch.equal(other.eval()(x), ours.eval()(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be a whole number, at least 1, got 0"),
        ({"momentum": 1.5}, "momentum must be from 0 to 1, got 1.5"),
        ({"eps": -1.0}, "eps must be at least 0, got -1.0"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SequenceBatchNorm(**{"width": 4, **options})


def test_another_width_is_refused(unchecked):
    with pytest.raises(ValueError, match=r"x must be of shape \[batch, length, 5\], got \(2, 3, 4\)"):
        SequenceBatchNorm(5)(torch.randn(2, 3, 4))


# in an encoder


@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize("name", NORMS)
def test_an_encoder_has_the_norm_that_is_named(name, place):
    encoder = Encoder(12, 3, 2, norm=place, normalisation=name)
    kinds = {type(module) for module in encoder.modules() if "Norm" in type(module).__name__}
    assert kinds == {type(NORMS[name](12))}


@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize("extra_tokens", [0, 2])
def test_what_is_padded_never_matters_to_batch_norm(place, extra_tokens):
    encoder = Encoder(12, 3, 2, norm=place, normalisation="batch", extra_tokens=extra_tokens).double()
    x, key_mask = draws(3, 7, 12), mask(7, 4, 1, n=7)
    out = encoder(x, key_mask)
    dirty = x.masked_fill(~key_mask[..., None], 1e6)
    longer = torch.cat([dirty, torch.full_like(dirty, float("nan"))], 1)
    other = encoder(longer, torch.cat([key_mask, torch.zeros_like(key_mask)], 1))
    torch.testing.assert_close(other[:, :7][key_mask], out[key_mask], rtol=0, atol=1e-10)


def test_batches_of_training_know_later_tokens():
    encoder, x = Encoder(12, 3, 1, normalisation="batch"), torch.randn(2, 5, 12)
    with pytest.raises(ValueError, match=r"normalisation must be layer or rms where attention is causal.*got 'batch'"):
        encoder(x, causal=True)
    encoder(x)
    encoder.eval()(x, causal=True)


def test_an_unknown_norm_is_refused_with_the_nearest():
    message = r"normalisation must be one of batch, layer, rms, got 'bach' \(did you mean 'batch'\?\)"
    with pytest.raises(ValueError, match=message):
        Encoder(12, 3, 1, normalisation="bach")


# several workers

WORKER = """
import sys, torch, torch.distributed as dist
from saccade.nn.norms import SequenceBatchNorm
folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt")
norm = SequenceBatchNorm(5).double()
norm.load_state_dict(given["state"])
x = given["x"][rank].requires_grad_()
out = norm(x, given["mask"][rank])
(out * given["weight"][rank]).sum().backward()
torch.save([out.detach(), x.grad, norm.weight.grad, norm.mean, norm.variance], f"{folder}/found-{rank}.pt")
dist.destroy_process_group()
"""


def test_two_workers_are_one_batch(tmp_path):
    """One worker has more tokens than the other, and an example that is all padding."""
    ours, x, weight = norm(), draws(2, 2, 7, WIDTH), draws(2, 2, 7, WIDTH)
    key_mask = torch.stack([mask(7, 5, n=7), mask(2, 0, n=7)])
    given = {"state": ours.state_dict(), "x": x, "mask": key_mask, "weight": weight}
    torch.save(given, tmp_path / "given.pt")
    local = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [
        subprocess.Popen([*command, str(rank)], env={**os.environ, **local}, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    whole = x.flatten(0, 1).requires_grad_()
    out = ours(whole, key_mask.flatten(0, 1))
    (out * weight.flatten(0, 1)).sum().backward()
    found = [torch.load(tmp_path / f"found-{rank}.pt") for rank in range(2)]
    torch.testing.assert_close(torch.cat([each[0] for each in found]), out.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat([each[1] for each in found]), whole.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(found[0][2] + found[1][2], ours.weight.grad, rtol=0, atol=1e-12)
    for each in found:
        torch.testing.assert_close(each[3:], [ours.mean, ours.variance], rtol=0, atol=1e-12)

"""Cross-entropy with label smoothing, next to its definition: sums and counts, padding that never matters."""

import pytest
import torch

from saccade.nn.losses import Loss, cross_entropy

V, N = 7, 5


def by_definition(logits, targets, mask, smoothing):
    """Token by token: minus the expected log-probability under the smoothed target."""
    total = torch.zeros((), dtype=logits.dtype)
    for b in range(logits.shape[0]):
        for n in range(logits.shape[1]):
            if mask[b, n]:
                chances = logits[b, n].exp() / logits[b, n].exp().sum()
                wanted = torch.full((V,), smoothing / V, dtype=logits.dtype)
                wanted[targets[b, n]] += 1 - smoothing
                total = total - (wanted * chances.log()).sum()
    return total


def drawn():
    logits = torch.randn(3, N, V, dtype=torch.float64, requires_grad=True)
    return logits, torch.randint(V, (3, N)), torch.arange(N) < torch.tensor([[5], [2], [0]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_it_is_what_its_definition_says(smoothing):
    logits, targets, mask = drawn()
    loss, wanted = cross_entropy(logits, targets, mask, smoothing), by_definition(logits, targets, mask, smoothing)
    torch.testing.assert_close(loss.sum, wanted, rtol=1e-12, atol=1e-12)
    assert loss.count == 7
    torch.testing.assert_close(loss.mean, wanted / 7)
    one, other = (torch.autograd.grad(each, logits)[0] for each in (loss.sum, wanted))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    everything = torch.ones(3, N, dtype=torch.bool)
    assert torch.equal(cross_entropy(logits, targets).sum, cross_entropy(logits, targets, everything).sum)


def test_sums_and_counts_of_parts_add_up():
    logits, targets, mask = drawn()
    whole = cross_entropy(logits, targets, mask, 0.1)
    parts = [cross_entropy(logits[b], targets[b], mask[b], 0.1) for b in range(3)]
    torch.testing.assert_close(sum(part.sum for part in parts), whole.sum)
    assert sum(part.count for part in parts) == whole.count


def test_what_stands_behind_the_mask_never_matters():
    logits, targets, mask = drawn()
    clean = cross_entropy(logits, targets, mask, 0.1)
    dirty = logits.detach().masked_fill(~mask[..., None], float("nan")).requires_grad_()
    loss = cross_entropy(dirty, targets.masked_fill(~mask, -5), mask, 0.1)
    assert torch.equal(loss.sum, clean.sum)
    loss.sum.backward()
    assert dirty.grad.isfinite().all()
    assert not dirty.grad[~mask].any()


def test_no_token_costs_nothing():
    logits, targets, _ = drawn()
    loss = cross_entropy(logits, targets, torch.zeros(3, N, dtype=torch.bool), 0.1)
    assert isinstance(loss, Loss)
    assert (loss.sum, loss.count, loss.mean) == (0, 0, 0)


def test_what_cannot_be_is_refused(unchecked):
    logits, targets, mask = drawn()
    with pytest.raises(ValueError, match="smoothing must be at least 0 and below 1, got 1"):
        cross_entropy(logits, targets, smoothing=1)
    with pytest.raises(ValueError, match=r"targets must be of the shape of the logits, \(3, 5\), got \(3, 4\)"):
        cross_entropy(logits, targets[:, 1:])
    with pytest.raises(ValueError, match=r"mask must be of the shape of the logits, \(3, 5\), got \(2, 5\)"):
        cross_entropy(logits, targets, mask[1:])

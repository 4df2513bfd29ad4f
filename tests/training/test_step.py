"""What a step makes of several micro-batches: the gradient of one batch of all their tokens."""

import pytest
import torch

from saccade.nn.auxiliary import with_auxiliary
from saccade.nn.losses import Loss, cross_entropy
from saccade.training import TrainingSettings, train

SIZES = (5, 2, 0, 11)
SETTINGS = TrainingSettings(steps=3, learning_rate=0.05, clip=0.2)


def unequal(start):
    """Batches of sizes that differ, one of them empty."""
    number = start
    while True:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(SIZES[number % len(SIZES)], 7, generator=generator)
        yield x, x[:, :3].argmax(1)
        number += 1


def joined(start):
    stream = unequal(len(SIZES) * start)
    while True:
        yield tuple(torch.cat(parts) for parts in zip(*(next(stream) for _ in SIZES), strict=True))


def trained(toy, loss, batches, accumulate):
    model, losses = toy.model(), []
    model[1].p = 0.0
    settings = TrainingSettings(**{**vars(SETTINGS), "accumulate": accumulate})
    train(model, loss, batches, settings, quiet=True, on_step=lambda step, loss, seconds: losses.append(loss))
    return model, losses


def test_micro_batches_of_any_sizes_are_one_batch(toy):
    whole, losses = trained(toy, toy.loss, joined, 1)
    parts, same = trained(toy, toy.loss, unequal, len(SIZES))
    assert same == pytest.approx(losses, rel=1e-5)
    for one, other in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_means_of_means_would_be_told_apart(toy):
    def mean(model, batch):
        return Loss(toy.loss(model, batch).mean, torch.tensor(1))

    whole, _ = trained(toy, toy.loss, joined, 1)
    parts, _ = trained(toy, mean, unequal, len(SIZES))
    assert (whole[0].weight - parts[0].weight).abs().max() > 1e-3


def test_a_step_without_a_token_changes_nothing_by_its_gradient(toy):
    def empty(start):
        while True:
            yield torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64)

    model, losses = trained(toy, toy.loss, empty, 2)
    assert losses == [0.0] * 3
    assert torch.equal(model[0].bias, toy.model()[0].bias)  # vectors do not decay


@pytest.mark.parametrize("count", [1, 4, 41, 47, 55])
def test_one_batch_has_the_gradient_of_its_mean_bit_for_bit(count):
    """41 is the least count n for which 1 / n times n is not 1 in single precision."""
    logits = torch.randn(count, 5)
    targets = torch.randint(5, (count,))
    found = []
    for exact in (True, False):
        x, extra = logits.clone().requires_grad_(), torch.tensor(0.3, requires_grad=True)
        if exact:
            loss = with_auxiliary(cross_entropy(x, targets), [extra * extra])
            (loss.sum * (1 / loss.count.item())).backward()
        else:
            (torch.nn.functional.cross_entropy(x, targets) + extra * extra).backward()
        found.append((x.grad, extra.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_auxiliary_losses_are_added_to_the_mean():
    task = Loss(torch.tensor(6.0), torch.tensor(3))
    assert with_auxiliary(task, [torch.tensor(0.5), torch.tensor(0.25)]).mean.item() == pytest.approx(2.75)
    assert with_auxiliary(task, []).mean == 2
    assert with_auxiliary(Loss(torch.tensor(0.0), torch.tensor(0)), [torch.tensor(0.5)]).mean == 0.5

"""Sequence to sequence: trained to write words from behind, stopped and resumed."""

from dataclasses import replace

import torch
from reversing import MODEL
from stopping import assert_goes_on

from saccade import training
from saccade.nn import cross_entropy
from saccade.tasks.seq2seq import load, loss, prepare
from saccade.training import TrainingSettings


def test_training_learns_to_reverse(reversing_recipe):
    longer = TrainingSettings(steps=300, learning_rate=0.005)
    model = replace(MODEL, width=32, dropout=0.0)
    work = prepare(replace(reversing_recipe, batch_tokens=256, smoothing=0.0, training=longer, model=model))
    before = work.metrics()
    work.fit(quiet=True)
    after = work.metrics()
    assert before["word_error"] > 0.9
    assert after["word_error"] < 0.4
    assert after["perplexity"] < 1.3 < before["perplexity"]


def test_a_stopped_run_goes_on_as_if_it_had_not(reversing_run, reversing_recipe, tmp_path):
    assert_goes_on(reversing_recipe, load, reversing_run, tmp_path / "run")


def test_batches_go_on_from_any_number_and_hold_so_many_tokens(reversing_recipe):
    work = prepare(reversing_recipe)
    first = work.batches(0)
    batches = [next(first) for _ in range(60)]  # more than an epoch
    assert {row for batch in batches for row in batch.rows.tolist()} == set(range(len(work.data.train)))
    for batch in batches:
        assert len(batch) * max(batch.source.shape[1], batch.target.shape[1]) <= 64
    for start in (1, 37, 59):
        assert torch.equal(next(work.batches(start)).rows, batches[start].rows)


def test_two_accumulated_batches_are_one_of_both(reversing_recipe):
    """Whatever their sizes are: each token counts once."""

    def trained(accumulate):
        settings = TrainingSettings(steps=3, accumulate=accumulate, learning_rate=0.01)
        work = prepare(replace(reversing_recipe, model=replace(MODEL, dropout=0.0), training=settings))
        work = replace(work, model=work.model.double())
        merged = 2 // accumulate

        def batches(start):
            stream = work.batches(start * merged)
            while True:
                yield work.data.train.batch(torch.cat([next(stream).rows for _ in range(merged)]))

        training.train(work.model, work.loss, batches, settings, quiet=True)
        return work.model

    for one, other in zip(trained(2).parameters(), trained(1).parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_the_loss_is_smoothed_and_counts_real_tokens(reversing_recipe):
    work = prepare(reversing_recipe)
    model = work.model.double().eval()
    batch = work.data.train.batch(torch.arange(7))
    found = loss(model, batch, smoothing=0.2)
    log_probs = model(batch.source, batch.inputs, batch.source_mask, batch.target_mask).log_softmax(-1)
    by_hand, count = 0.0, 0
    for row, place in batch.target_mask.nonzero().tolist():
        here = log_probs[row, place]
        by_hand, count = by_hand - 0.8 * here[batch.target[row, place]] - 0.2 * here.mean(), count + 1
    torch.testing.assert_close(found.sum, by_hand)
    assert found.count == count == int(work.data.train.targets.lengths[:7].sum())
    assert work.loss(model, batch).sum == loss(model, batch, reversing_recipe.smoothing).sum


def test_auxiliary_losses_are_learned_from(reversing_recipe):
    model = replace(MODEL, mechanism="routing(clusters=2)")
    work = prepare(replace(reversing_recipe, model=model))
    batch = work.data.train.batch(torch.arange(7))
    logits = work.model.eval()(batch.source, batch.inputs, batch.source_mask, batch.target_mask)
    assert loss(work.model, batch).sum > cross_entropy(logits, batch.target, batch.target_mask).sum

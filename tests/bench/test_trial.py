from dataclasses import replace

import pytest
import torch

from saccade.bench.trial import Trial, right_answers
from saccade.tasks.classification import prepare, score

CPU = torch.device("cpu")


def weights(trial):
    return [weight.detach().clone() for weight in trial.model.parameters()]


def test_a_step_trains_and_inference_does_not(small_recipe):
    trial = Trial(prepare(small_recipe), CPU)
    before = weights(trial)
    trial.infer()
    assert all(map(torch.equal, weights(trial), before))
    assert not trial.model.training
    trial.step()
    assert trial.model.training
    assert not any(map(torch.equal, weights(trial), before))
    assert all(weight.grad is None for weight in trial.model.parameters())


def test_all_trials_see_the_same_batch(small_recipe):
    first, second = (Trial(prepare(small_recipe), CPU).batch for _ in range(2))
    assert torch.equal(first.tokens, second.tokens)
    assert len(first) == small_recipe.training.batch_size


def test_it_runs_in_the_precision_of_the_recipe(small_recipe):
    reduced = replace(small_recipe, training=replace(small_recipe.training, precision="bf16"))
    for recipe, dtype in ((small_recipe, torch.float32), (reduced, torch.bfloat16)):
        trial = Trial(prepare(recipe), CPU)
        seen = []
        trial.model.output.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output.dtype))
        trial.step()
        trial.infer()
        assert seen == [dtype, dtype]


def test_right_answers_are_those_of_the_score(small_recipe):
    prepared = prepare(small_recipe)
    test, pad_id = prepared.data.test, prepared.data.vocabulary.pad_id
    right = right_answers(prepared.model, test, pad_id, 7)
    assert len(right) == len(test)
    assert right.double().mean().item() == pytest.approx(score(prepared.model, test, pad_id).accuracy)

"""Means of weights, an early end, and layers that are computed again."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from saccade.nn import Encoder
from saccade.nn.losses import Loss
from saccade.training import Interrupted, TrainingSettings, train
from saccade.training.checkpoint import written

SETTINGS = TrainingSettings(steps=11, checkpoint_every=2, log_every=1, learning_rate=0.05)


def run(toy, settings, out=None, stop=None, **options):
    """The model, its weights after each step, and what `train` says."""
    model, weights = toy.model(), []

    def on_step(step, loss, seconds):
        weights.append({name: weight.detach().clone() for name, weight in model.named_parameters()})
        if step == stop:
            os.kill(os.getpid(), signal.SIGINT)

    result = train(model, toy.loss, toy.batches, settings, out, quiet=True, on_step=on_step, **options)
    return model, weights, result


def stopped_and_resumed(toy, settings, out, stop, **options):
    with pytest.raises(Interrupted):
        run(toy, settings, out, stop, **options)
    return run(toy, settings, out, resume=True, **options)[0]


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_moving_average_is_what_it_says(toy):
    model, weights, _ = run(toy, replace(SETTINGS, ema=0.7))
    for name, found in model.named_parameters():
        average = weights[0][name].double()
        for each in weights[1:]:
            average = 0.7 * average + 0.3 * each[name].double()
        torch.testing.assert_close(found.double(), average, rtol=1e-5, atol=1e-7)


def test_training_goes_on_from_its_own_weights_not_from_their_average(toy):
    _, plain, _ = run(toy, replace(SETTINGS, validate_every=2), validate=toy.score)
    _, beside, _ = run(toy, replace(SETTINGS, validate_every=2, ema=0.7), validate=toy.score)
    assert all(torch.equal(a[name], b[name]) for a, b in zip(plain, beside, strict=True) for name in a)


def test_the_moving_average_is_validated_and_the_best_one_returned(toy):
    settings, seen = replace(SETTINGS, ema=0.7, validate_every=4), []

    def validate(model):
        seen.append([weight.detach().clone() for weight in model.parameters()])
        return [1.0, 3.0, 2.0][len(seen) - 1]

    model, weights, result = run(toy, settings, validate=validate)
    assert result.step == 8
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), seen[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(seen[1], weights[7].values(), strict=True))


@pytest.mark.parametrize("settings", [replace(SETTINGS, ema=0.7), replace(SETTINGS, average=3)], ids=["ema", "average"])
def test_means_survive_a_resume_bit_for_bit(toy, tmp_path, settings):
    whole, _, _ = run(toy, settings, tmp_path / "whole")
    assert equal(stopped_and_resumed(toy, settings, tmp_path / "run", 7), whole)
    again, _, result = run(toy, settings, tmp_path / "run", resume=True)
    assert result.step == 11
    assert equal(again, whole)


def test_the_average_is_that_of_the_last_checkpoints_which_are_kept(toy, tmp_path):
    model, weights, result = run(
        toy, replace(SETTINGS, average=3, validate_every=2), tmp_path / "run", validate=lambda model: -len(os.sep)
    )
    kept = written(tmp_path / "run" / "checkpoints")
    assert [path.name for path in kept] == ["step-00000008", "step-00000010", "step-00000011"]
    for name, found in model.named_parameters():
        average = torch.stack([weights[step - 1][name].double() for step in (8, 10, 11)]).mean(0)
        torch.testing.assert_close(found.double(), average, rtol=1e-6, atol=1e-8)
        assert torch.equal(load_file(kept[0] / "model.safetensors")[name], weights[7][name])
    assert (result.step, result.validation) == (11, -1)


def test_training_ends_where_validation_no_longer_gets_better(toy, tmp_path):
    settings = replace(SETTINGS, steps=40, validate_every=3, patience=2)
    scores = {3: 0.1, 6: 0.5, 9: 0.4, 12: 0.5}

    def validator(steps):
        order = iter(steps)
        return lambda model: scores[next(order)]

    whole, weights, result = run(toy, settings, tmp_path / "whole", validate=validator(scores))
    assert len(weights) == 12
    assert (result.step, result.validation) == (6, 0.5)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 12
    with pytest.raises(Interrupted):
        run(toy, settings, tmp_path / "run", 10, validate=validator([3, 6, 9]))
    resumed, weights, _ = run(toy, settings, tmp_path / "run", resume=True, validate=validator([12]))
    assert len(weights) == 2
    assert equal(resumed, whole)
    again, weights, result = run(toy, settings, tmp_path / "run", resume=True, validate=validator([]))
    assert weights == []
    assert result.step == 6
    assert equal(again, whole)


def test_an_average_without_a_folder_is_refused(toy):
    with pytest.raises(ValueError, match="out must be a folder, as average is a mean of checkpoints, got None"):
        run(toy, replace(SETTINGS, average=2))


def test_a_moving_average_cannot_begin_in_the_middle_of_a_run(toy, tmp_path):
    with pytest.raises(Interrupted):
        run(toy, SETTINGS, tmp_path / "run", 7)
    with pytest.raises(ValueError, match=r"ema must be 0, as the run to resume keeps no moving average .*, got 0\.7"):
        run(toy, replace(SETTINGS, ema=0.7), tmp_path / "run", resume=True)


class Layers:
    """A stack with dropout, a mechanism that learns in `after_step`, and one that draws."""

    def model(self):
        torch.manual_seed(3)
        mechanisms = ["routing(clusters=3, decay=0.5)", "full", "lsh(bucket=4, rounds=2)", "local(left=3)"]
        return Encoder(8, 2, len(mechanisms), 32, mechanisms, dropout=0.3)

    def batches(self, start):
        while True:
            yield torch.randn(3, 23, 8, generator=torch.Generator().manual_seed(start))
            start += 1

    def loss(self, model, x):
        return Loss((model(x) - x.flip(1)).square().sum(), torch.tensor(x.numel()))


def kept_bytes(model, loss, x):
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(model, x)
    return sum(kept.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_layers_that_are_computed_again_give_the_same_weights_bit_for_bit(precision):
    toy, kept, models = Layers(), [], []
    for again in (False, True):
        measured = []

        def loss(model, x, measured=measured):
            if not measured:
                measured.append(kept_bytes(model, toy.loss, x))
            return toy.loss(model, x)

        settings = replace(SETTINGS, steps=4, accumulate=2, recompute=again, precision=precision)
        model = toy.model()
        train(model, loss, toy.batches, settings, quiet=True)
        kept.append(measured[0])
        models.append(model)
    for name, weight in models[0].state_dict().items():
        assert torch.equal(models[1].state_dict()[name], weight), name
    assert kept[1] < 0.3 * kept[0]
    assert all("forward" not in layer.__dict__ for layer in models[1].layers)


def test_tensorboard_that_is_missing_is_said_before_anything_is_written(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("saccade.training.tensorboard.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"needs tensorboard: pip install 'saccade\[tensorboard\]'"):
        run(toy, replace(SETTINGS, tensorboard=True), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_curves_are_those_of_the_log(toy, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = replace(SETTINGS, tensorboard=True, log_every=2)
    stopped_and_resumed(toy, settings, tmp_path / "run", 7)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    shown = {event.step: event.value for event in events.Scalars("loss")}
    assert shown == {line["step"]: pytest.approx(line["loss"], rel=1e-6) for line in lines}

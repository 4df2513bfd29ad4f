import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest
import torch

from saccade.attention import AttentionLayer, after_step
from saccade.nn.losses import Loss, cross_entropy
from saccade.training import Interrupted, TrainingSettings, loop, train

SETTINGS = TrainingSettings(steps=11, batch_size=5, checkpoint_every=4, log_every=3, learning_rate=0.05)


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def run(toy, model, out=None, settings=SETTINGS, **options):
    return train(model, toy.loss, toy.batches, settings, out, quiet=True, **options)


def interrupt_at(at):
    def on_step(step, loss, seconds):
        if step == at:
            os.kill(os.getpid(), signal.SIGINT)

    return on_step


def test_training_lowers_the_loss_and_reports_each_step(toy, tmp_path):
    model, seen = toy.model(), []
    result = run(
        toy,
        model,
        tmp_path / "run",
        settings=TrainingSettings(steps=150, learning_rate=0.05, log_every=50),
        on_step=lambda step, loss, seconds: seen.append((step, loss, seconds)),
    )
    assert [step for step, _, _ in seen] == list(range(1, 151))
    assert sum(loss for _, loss, _ in seen[-10:]) < 0.6 * sum(loss for _, loss, _ in seen[:10])
    assert result.step == 150
    assert result.loss == seen[-1][1]
    assert result.step_seconds == tuple(seconds for _, _, seconds in seen)
    assert result.steps_per_second == pytest.approx(1 / sorted(result.step_seconds)[75], rel=0.2)
    assert [line["step"] for line in lines(tmp_path / "run")] == [50, 100, 150]
    assert lines(tmp_path / "run")[-1]["loss"] == result.loss
    assert not any(weight.grad is not None for weight in model.parameters())


def test_a_step_is_adamw_on_a_clipped_gradient_with_the_scheduled_rate(toy):
    settings = TrainingSettings(steps=3, warmup=0.67, learning_rate=0.1, clip=0.01, weight_decay=0.5)
    model, twin = toy.model().eval(), toy.model()
    model[1].p = twin[1].p = 0.0
    run(toy, model, settings=settings)
    optimizer = torch.optim.AdamW(
        [
            {"params": [twin[0].weight, twin[3].weight], "weight_decay": 0.5},
            {"params": [twin[0].bias, twin[3].bias], "weight_decay": 0},
        ]
    )
    for batch, rate in zip(toy.batches(0), [0.05, 0.1, 0.05], strict=False):
        optimizer.zero_grad()
        toy.loss(twin, batch).mean.backward()
        norm = torch.cat([weight.grad.flatten() for weight in twin.parameters()]).norm()
        for weight in twin.parameters():
            weight.grad *= 0.01 / norm
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stop", [2, 7, 8, 10])
def test_a_run_stopped_and_resumed_equals_one_that_was_not(toy, tmp_path, stop, precision):
    settings = TrainingSettings(**{**vars(SETTINGS), "precision": precision})
    whole = toy.model()
    run(toy, whole, tmp_path / "whole", settings)
    stopped = toy.model()
    with pytest.raises(Interrupted) as caught:
        run(toy, stopped, tmp_path / "run", settings, on_step=interrupt_at(stop))
    assert caught.value.step == stop
    assert caught.value.folder == tmp_path / "run"
    how = f"continue with: saccade train --resume {tmp_path / 'run'}"
    assert str(caught.value) == f"stopped after step {stop}; everything is saved; {how}"
    assert not equal(whole, stopped)

    resumed, seen = toy.model(), []
    torch.manual_seed(99)
    run(toy, resumed, tmp_path / "run", settings, resume=True, on_step=lambda step, *_: seen.append(step))
    assert seen == list(range(stop + 1, 12))
    assert equal(whole, resumed)
    timeless = [[{**line, "seconds": 0} for line in lines(tmp_path / name)] for name in ("whole", "run")]
    assert timeless[0] == timeless[1]


def test_the_toy_would_show_a_resume_that_forgets_dropout_or_data(toy):
    one, other = toy.model(), toy.model()
    run(toy, one)
    run(toy, other, settings=TrainingSettings(**{**vars(SETTINGS), "seed": 1}))
    assert not equal(one, other)


def test_a_crash_between_checkpoints_repeats_the_steps_that_were_lost(toy, tmp_path):
    whole, crashed = toy.model(), toy.model()
    run(toy, whole, tmp_path / "whole")

    def crash(step, loss, seconds):
        if step == 7:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run(toy, crashed, tmp_path / "run", on_step=crash)
    with (tmp_path / "run" / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    resumed, seen = toy.model(), []
    run(toy, resumed, tmp_path / "run", resume=True, on_step=lambda step, *_: seen.append(step))
    assert seen[0] == 5
    assert equal(whole, resumed)
    assert [line["step"] for line in lines(tmp_path / "run")] == [3, 6, 9, 11]


def test_an_interrupt_inside_a_step_lets_it_finish(toy, tmp_path):
    calls = []

    def loss(model, batch):
        calls.append(batch)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return toy.loss(model, batch)

    with pytest.raises(Interrupted, match="stopped after step 2"):
        train(toy.model(), loss, toy.batches, SETTINGS, tmp_path / "run", quiet=True)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002"]


def test_an_interrupt_without_a_folder_says_that_nothing_is_saved(toy):
    with pytest.raises(Interrupted, match="stopped after step 2; nothing is saved") as caught:
        run(toy, toy.model(), on_step=interrupt_at(2))
    assert caught.value.folder is None


def test_an_interrupt_at_the_last_step_changes_nothing(toy, tmp_path):
    assert run(toy, toy.model(), tmp_path / "run", on_step=interrupt_at(11)).step == 11


def test_the_handler_of_the_caller_is_there_again_afterwards(toy):
    seen = []
    before = signal.signal(signal.SIGINT, lambda *call: seen.append(call))
    try:
        with pytest.raises(Interrupted):
            run(toy, toy.model(), on_step=interrupt_at(2))
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(seen) == 1


def test_a_run_in_another_thread_leaves_signals_alone(toy):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, toy, toy.model()).result().step == 11


def test_a_second_interrupt_stops_at_once(toy, tmp_path):
    def twice(step, loss, seconds):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(toy, toy.model(), tmp_path / "run", on_step=twice)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(toy, tmp_path):
    calls = []

    def loss(model, batch):
        calls.append(batch)
        found = toy.loss(model, batch)
        return found._replace(sum=found.sum * (float("nan") if len(calls) == 6 else 1))

    model = toy.model()
    with pytest.raises(FloatingPointError) as caught:
        train(model, loss, toy.batches, SETTINGS, tmp_path / "run", quiet=True)
    message = str(caught.value)
    assert message.startswith("loss must be finite, got nan at step 6 with learning rate 0.0273: ")
    assert "try a lower training.learning_rate" in message
    assert f"the checkpoint of step 4 in {tmp_path / 'run'} is kept" in message
    assert all(weight.isfinite().all() for weight in model.parameters())
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000004"]


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(toy):
    def loss(model, batch):
        return Loss((model(batch[0]).sum() * 0).abs().sqrt(), torch.tensor(1))

    model = toy.model()
    with pytest.raises(FloatingPointError, match=r"gradient norm must be finite, got nan at step 1 .*no checkpoint"):
        train(model, loss, toy.batches, SETTINGS, quiet=True)
    assert equal(model, toy.model())


def test_an_existing_run_is_never_overwritten(toy, tmp_path):
    run(toy, toy.model(), tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match="already holds a run: choose another folder, or resume it"):
        run(toy, toy.model(), tmp_path / "run")
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_resuming_a_finished_run_does_nothing_but_load_it(toy, tmp_path):
    whole, again = toy.model(), toy.model()
    run(toy, whole, tmp_path / "run")
    result = run(toy, again, tmp_path / "run", resume=True)
    assert result.step == 11
    assert result.step_seconds == ()
    assert result.steps_per_second == 0
    assert equal(whole, again)


def test_precisions_follow_each_other_in_one_process_and_leave_no_trace(toy):
    model = toy.model()
    x = next(toy.batches(0))[0]
    for precision in ("bf16", "fp32", "bf16"):
        inside, outside = [], []

        def loss(model, batch, outside=outside):
            out = model(batch[0])
            outside.append(out.dtype)
            return cross_entropy(out, batch[1])

        hook = model[0].register_forward_hook(lambda *call, inside=inside: inside.append(call[2].dtype))
        train(model, loss, toy.batches, TrainingSettings(steps=3, precision=precision), quiet=True)
        hook.remove()
        assert inside == [torch.bfloat16 if precision == "bf16" else torch.float32] * 3
        assert outside == [torch.float32] * 3
        model.eval()
        assert torch.equal(model(x), model[3](model[2](model[0](x))))
        assert model[0].weight.dtype == torch.float32


def test_the_best_weights_on_validation_are_the_result_also_after_a_resume(toy, tmp_path):
    scores = {3: 0.1, 6: 0.9, 9: 0.9, 11: 0.4}
    settings = TrainingSettings(**{**vars(SETTINGS), "validate_every": 3})
    kept = {}

    def validator(steps):
        order = iter(steps)

        def validate(model):
            assert not model.training
            step = next(order)
            kept[step] = {name: weight.clone() for name, weight in model.state_dict().items()}
            return scores[step]

        return validate

    model = toy.model()
    result = run(toy, model, tmp_path / "whole", settings, validate=validator(scores))
    assert (result.step, result.validation) == (6, 0.9)
    assert all(torch.equal(weight, kept[6][name]) for name, weight in model.state_dict().items())
    assert [line.get("validation") for line in lines(tmp_path / "whole")] == [0.1, 0.9, 0.9, 0.4]

    with pytest.raises(Interrupted):
        run(toy, toy.model(), tmp_path / "run", settings, validate=validator(scores), on_step=interrupt_at(7))
    resumed = toy.model()
    result = run(toy, resumed, tmp_path / "run", settings, validate=validator([9, 11]), resume=True)
    assert (result.step, result.validation) == (6, 0.9)
    assert equal(model, resumed)


def test_what_moves_without_gradients_moves_once_after_each_step(toy):
    moved, weights = [], []

    class Moving(AttentionLayer):
        def forward(self, x):
            return x

        def after_step(self):
            moved.append(model[0].weight.detach().clone())

    model = toy.model().append(Moving())
    keep = lambda *_: weights.append(model[0].weight.detach().clone())  # noqa: E731
    run(toy, model, settings=TrainingSettings(steps=3), on_step=keep)
    assert len(moved) == 3
    assert all(torch.equal(after, then) for after, then in zip(moved, weights, strict=True))


def test_a_layer_of_layers_passes_the_call_on_itself():
    class Counting(AttentionLayer):
        def __init__(self, inner=None):
            super().__init__()
            self.calls, self.inner = 0, inner

        def forward(self):
            raise NotImplementedError

        def after_step(self):
            self.calls += 1
            if self.inner is not None:
                self.inner.after_step()

    outer, twice = Counting(Counting()), Counting()
    after_step(torch.nn.ModuleList([outer, torch.nn.Sequential(twice), twice, torch.nn.Linear(1, 1)]))
    assert (outer.calls, outer.inner.calls, twice.calls) == (1, 1, 1)


def test_what_does_not_belong_together_is_refused(toy):
    with pytest.raises(ValueError, match="out must be the folder of the run to resume, got None"):
        run(toy, toy.model(), resume=True)
    with pytest.raises(ValueError, match="validate must be given, as validate_every is not 0, got None"):
        run(toy, toy.model(), settings=TrainingSettings(steps=2, validate_every=1))
    with pytest.raises(ValueError, match="batches must be endless, got 'nothing for step 3'"):
        train(toy.model(), toy.loss, lambda start: islice(toy.batches(start), 2), SETTINGS, quiet=True)


def test_the_bar_shows_steps_loss_speed_and_time_left(toy, capsys):
    train(toy.model(), toy.loss, toy.batches, TrainingSettings(steps=3))
    shown = capsys.readouterr().out
    assert "3/3" in shown
    assert "loss" in shown
    assert "steps/s" in shown
    assert "left" in shown


def test_a_full_disk_while_logging_is_a_clear_error(toy, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"could not write .*log.jsonl: No space left on device .*--resume .*run\)$"):
        run(toy, toy.model(), out, settings=TrainingSettings(steps=2, log_every=1))
    assert loop.checkpoint.written(out / "checkpoints") == []

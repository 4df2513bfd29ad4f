import errno
import json
import os
import random
import shutil
import subprocess
import sys

import numpy
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from saccade.training import TrainingSettings, checkpoint, train
from saccade.training.checkpoint import Progress, restore, write, written


@pytest.fixture
def accelerator():
    AcceleratorState._reset_state()
    return Accelerator()


def prepare(accelerator, model):
    return accelerator.prepare(model, torch.optim.AdamW(model.parameters()))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything_written_is_restored(accelerator, toy, tmp_path, unchecked):
    model, optimizer = prepare(accelerator, toy.model())
    toy.loss(model, next(toy.batches(0))).mean.backward()
    optimizer.step()
    best = {"w": torch.randn(3, 5)}
    write(accelerator, tmp_path, Progress(7, 5, 0.25, best))
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    drawn = [torch.rand(3), random.random(), numpy.random.random()]
    toy.loss(model, next(toy.batches(1))).mean.backward()
    optimizer.step()

    progress = restore(accelerator, tmp_path)
    assert (progress.step, progress.best_step, progress.best_score) == (7, 5, 0.25)
    assert torch.equal(progress.best_weights["w"], best["w"])
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert all(state["step"] == 1 for state in optimizer.optimizer.state.values())
    assert torch.equal(torch.rand(3), drawn[0])
    assert [random.random(), numpy.random.random()] == drawn[1:]


def test_the_latest_is_found_by_its_step_and_two_are_kept(accelerator, toy, tmp_path):
    prepare(accelerator, toy.model())
    for step in (900, 1000, 100_000_000):
        write(accelerator, tmp_path, Progress(step))
    assert [path.name for path in written(tmp_path)] == ["step-00001000", "step-100000000"]
    assert restore(accelerator, tmp_path).step == 100_000_000


def fail(error):
    def save_state(self, folder):
        with open(os.path.join(folder, "half.bin"), "w") as file:
            file.write("half")
        raise error

    return save_state


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file"),
    ],
)
def test_a_full_disk_leaves_the_earlier_checkpoint_and_nothing_else(accelerator, toy, tmp_path, monkeypatch, error):
    prepare(accelerator, toy.model())
    write(accelerator, tmp_path, Progress(4))
    before = contents(tmp_path)
    monkeypatch.setattr(Accelerator, "save_state", fail(error))
    with pytest.raises(OSError, match=r"could not write .*step-00000008: .*make room.*--resume .*$") as caught:
        write(accelerator, tmp_path, Progress(8))
    assert "Errno" not in str(caught.value)
    assert contents(tmp_path) == before
    assert restore(accelerator, tmp_path).step == 4


def test_a_full_disk_is_named_also_where_the_library_does_not(accelerator, toy, tmp_path, monkeypatch):
    prepare(accelerator, toy.model())
    monkeypatch.setattr(Accelerator, "save_state", fail(RuntimeError("unexpected pos 576 vs 534")))
    with pytest.raises(OSError, match=r"could not write .*: unexpected pos 576 vs 534"):
        write(accelerator, tmp_path, Progress(8))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0))
    with pytest.raises(OSError, match=r"could not write .*: the disk is full"):
        write(accelerator, tmp_path, Progress(8))


def test_a_stop_in_the_middle_of_writing_leaves_nothing_partial(accelerator, toy, tmp_path, monkeypatch):
    prepare(accelerator, toy.model())
    monkeypatch.setattr(Accelerator, "save_state", fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write(accelerator, tmp_path, Progress(8))
    assert list(tmp_path.iterdir()) == []


def test_what_a_power_cut_left_is_never_picked_up(accelerator, toy, tmp_path):
    prepare(accelerator, toy.model())
    write(accelerator, tmp_path, Progress(4))
    (tmp_path / "partial-00000008").mkdir()
    (tmp_path / "partial-00000008" / "model.safetensors").write_text("half")
    assert restore(accelerator, tmp_path).step == 4
    write(accelerator, tmp_path, Progress(8))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000004", "step-00000008"]


LIMITED = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from small_toy import Toy
from saccade.training import TrainingSettings, train

def on_step(step, loss, seconds):
    if step == 5:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))

toy = Toy()
settings = TrainingSettings(steps=11, checkpoint_every=4)
try:
    train(toy.model(), toy.loss, toy.batches, settings, Path(sys.argv[1]), on_step=on_step, quiet=True)
except OSError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more_of_a_file_is_survived_for_real(toy, tmp_path):
    """The operating system refuses the write, whichever library makes it."""
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "run"), os.path.dirname(__file__)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"could not write {tmp_path / 'run' / 'checkpoints' / 'step-00000008'}: ")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000004"]
    whole, resumed = toy.model(), toy.model()
    settings = TrainingSettings(steps=11, checkpoint_every=4)
    train(whole, toy.loss, toy.batches, settings, quiet=True)
    train(resumed, toy.loss, toy.batches, settings, tmp_path / "run", resume=True, quiet=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.bin", "random_states_0.pkl"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_damaged_checkpoint_is_refused_with_what_to_do(accelerator, toy, tmp_path, name, damage):
    prepare(accelerator, toy.model())
    write(accelerator, tmp_path, Progress(4))
    latest = write(accelerator, tmp_path, Progress(8))
    content = (latest / name).read_bytes()
    if damage == "flip":
        (latest / name).write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif damage == "cut":
        (latest / name).write_bytes(content[: len(content) // 2])
    else:
        (latest / name).unlink()
    message = rf"step-00000008 is damaged: {name} is missing or changed; delete the folder .*8 to resume"
    with pytest.raises(ValueError, match=message):
        restore(accelerator, tmp_path)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}"])
def test_a_checkpoint_without_its_list_of_files_is_refused(accelerator, toy, tmp_path, content):
    prepare(accelerator, toy.model())
    path = write(accelerator, tmp_path, Progress(4)) / "checkpoint.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ValueError, match=r"must have a readable checkpoint\.json; delete the folder"):
        restore(accelerator, tmp_path)


def test_a_folder_without_a_checkpoint_is_refused(accelerator, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*: nothing to resume; start the run anew"):
        restore(accelerator, tmp_path)


def test_a_checkpoint_of_another_model_is_refused(accelerator, toy, tmp_path):
    prepare(accelerator, toy.model())
    write(accelerator, tmp_path, Progress(4))
    AcceleratorState._reset_state()
    other = Accelerator()
    prepare(other, torch.nn.Sequential(torch.nn.Linear(7, 11)))
    with pytest.raises(ValueError, match=r"step-00000004 must belong to this model: (?s:.*)size mismatch for 0.weight"):
        restore(other, tmp_path)


def test_a_checkpoint_of_more_processes_is_refused(accelerator, toy, tmp_path):
    prepare(accelerator, toy.model())
    path = write(accelerator, tmp_path, Progress(4)) / checkpoint._MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "processes": 2}))
    with pytest.raises(ValueError, match=r"number of processes must be 2, as the run at .* had, got 1"):
        restore(accelerator, tmp_path)

import os
import subprocess
import sys

import mechanism_toy
import pytest
import torch

from saccade.training import TrainingSettings, train
from saccade.training.process import on_cpu, process_state

SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
from conftest import Toy
from saccade.training import Interrupted, TrainingSettings, train
from saccade.training.process import process_state

out = Path(sys.argv[2])
rank = int(os.environ["RANK"])
settings = TrainingSettings(steps=5, learning_rate=0.05)

def on_step(step, loss, seconds):
    if step == 3 and rank == 1:
        os.kill(os.getpid(), signal.SIGINT)

def run(resume, on_step):
    toy = Toy()
    model = toy.model()
    model[1].p = 0.0
    train(model, toy.loss, toy.batches, settings, out, resume=resume, on_step=on_step, quiet=True)
    return model

try:
    run(False, on_step)
except Interrupted as stop:
    out.with_name(f"stopped-{rank}").write_text(str(stop.step))
model = run(True, None)
torch.save(model.state_dict(), out.with_name(f"weights-{rank}.pt"))
torch.distributed.destroy_process_group()
"""

MECHANISMS = """
import os, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
import mechanism_toy
from saccade.training import train

model = mechanism_toy.model()
train(model, mechanism_toy.loss, mechanism_toy.batches, mechanism_toy.SETTINGS, quiet=True)
torch.save(model.state_dict(), Path(sys.argv[2]).with_name(f"weights-{os.environ['RANK']}.pt"))
torch.distributed.destroy_process_group()
"""


def in_two_processes(script, tmp_path):
    """Run a script that writes `weights-0.pt` and `weights-1.pt` beside the folder of its run."""
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    alone = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    local = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    done = subprocess.run(
        [*command, str(tmp_path / "script.py"), os.path.dirname(__file__), str(tmp_path / "run")],
        env={**os.environ, **alone, **local},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(tmp_path / f"weights-{rank}.pt") for rank in (0, 1)]


def pairs_of(batches):
    """A step of two processes is a step on the mean loss of two batches."""

    def pairs(start):
        stream = batches(2 * start)
        return zip(stream, stream, strict=True)

    return pairs


def mean_of(loss):
    return lambda model, pair: (loss(model, pair[0]) + loss(model, pair[1])) / 2


def test_two_processes_share_each_step_and_stop_together(toy, tmp_path):
    """Ctrl-C to one of them stops both."""
    found = in_two_processes(SCRIPT, tmp_path)
    assert [(tmp_path / f"stopped-{rank}").read_text() for rank in (0, 1)] == ["3", "3"]

    model = toy.model()
    model[1].p = 0.0

    train(model, mean_of(toy.loss), pairs_of(toy.batches), TrainingSettings(steps=5, learning_rate=0.05), quiet=True)
    for weights in found:
        for name, weight in model.state_dict().items():
            torch.testing.assert_close(weights[name], weight, rtol=1e-4, atol=1e-6)


def test_two_processes_agree_with_one_about_mechanisms_that_learn_choose_or_share(tmp_path):
    found = in_two_processes(MECHANISMS, tmp_path)
    model = mechanism_toy.model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    train(model, mean_of(mechanism_toy.loss), pairs_of(mechanism_toy.batches), mechanism_toy.SETTINGS, quiet=True)
    for name, weight in model.state_dict().items():
        assert not torch.equal(weight, before[name]), name
        for weights in found:
            torch.testing.assert_close(weights[name], weight, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("asked", "there", "expected"), [("1", True, True), ("0", True, False), ("0", False, True)])
def test_the_cpu_is_used_where_asked_for_or_where_nothing_else_is(monkeypatch, asked, there, expected):
    monkeypatch.setenv("ACCELERATE_USE_CPU", asked)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: there)
    assert on_cpu() is expected


def test_one_process_is_the_main_one():
    assert process_state().is_main_process
    assert process_state().num_processes == 1

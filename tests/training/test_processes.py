"""Two processes equal one with the same global batch."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mechanism_toy
import processes
import pytest
import torch

from saccade.training import train
from saccade.training.process import on_cpu, process_state


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes found."""
    out = tmp_path_factory.mktemp("processes")
    # Of its flags this one starts several processes. Without a GPU they use gloo on the CPU.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    environment = {
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    local = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    done = subprocess.run(
        [*launch, str(Path(__file__).with_name("processes.py")), str(out)],
        env={**os.environ, **environment, **local},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(out / f"found-{rank}.pt") for rank in (0, 1)]


def assert_close(found, job, weights, rtol, atol):
    for each in found:
        for name, weight in weights.items():
            torch.testing.assert_close(each[job]["weights"][name], weight, rtol=rtol, atol=atol)


def test_ctrl_c_to_one_stops_both_and_they_resume_together(toy, found):
    assert [each["interrupted"]["stopped"] for each in found] == [3, 3]
    model = processes.toy_model()
    train(model, toy.loss, toy.batches, replace(processes.TOY, accumulate=2), quiet=True)
    assert_close(found, "interrupted", model.state_dict(), 1e-5, 1e-6)


def test_batches_whose_counts_differ_count_by_their_tokens(tmp_path, found):
    one = processes.counted(tmp_path, replace(processes.ACCUMULATED, accumulate=4))
    assert_close(found, "counted", one["weights"], 1e-5, 1e-6)
    for each in found:
        assert each["counted"]["losses"] == pytest.approx(one["losses"], rel=1e-5)


def test_mechanisms_that_learn_choose_or_share_see_the_same(tmp_path, found):
    """Also what moves in `after_step`, of all processes and micro-batches: the centroids of routing."""
    before = {name: weight.clone() for name, weight in mechanism_toy.model().state_dict().items()}
    one = processes.mechanisms(tmp_path, replace(mechanism_toy.SETTINGS, accumulate=4))
    for name, weight in one["weights"].items():
        assert not torch.equal(weight, before[name]), name
    assert_close(found, "mechanisms", one["weights"], 1e-7, 1e-9)


def test_what_is_not_finite_in_one_ends_both(found):
    for each in found:
        assert each["not_finite"]["message"].startswith("loss must be finite, got nan at step 3 ")
        assert each["not_finite"]["steps"] == [1, 2]


@pytest.mark.parametrize(("asked", "there", "expected"), [("1", True, True), ("0", True, False), ("0", False, True)])
def test_the_cpu_is_used_where_asked_for_or_where_nothing_else_is(monkeypatch, asked, there, expected):
    monkeypatch.setenv("ACCELERATE_USE_CPU", asked)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: there)
    assert on_cpu() is expected


def test_one_process_is_the_main_one():
    assert process_state().is_main_process
    assert process_state().num_processes == 1

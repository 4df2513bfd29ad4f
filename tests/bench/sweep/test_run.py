import multiprocessing
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from saccade.bench.sweep.cell import run_cell
from saccade.bench.sweep.plan import Cell, read_plan
from saccade.bench.sweep.records import read_records
from saccade.bench.sweep.run import Only, sweep
from saccade.tasks.classification import Prepared

LINEAR = Cell("letters", "linear", 0)
FOUND = (
    "test_accuracy",
    "test_loss",
    "validation_accuracy",
    "train_loss",
    "data_fingerprint",
    "settings",
    "parameters",
)


def times(out):
    return {path.name: path.stat().st_mtime_ns for path in (out / "records").iterdir()}


def test_both_stages_and_speed_run_once(plan, tmp_path):
    out, said = tmp_path / "out", []
    records = sweep(plan, out, jobs=2, tell=said.append)
    (chosen,) = (line for line in said if "best by validation" in line)
    mechanism = "linear" if chosen.endswith("linear") else "local(left=2)"
    assert set(records) == {*plan.first(), *plan.second([mechanism]), *plan.speeds([mechanism])}
    assert {record["status"] for record in records.values()} == {"done"}
    before = times(out)
    assert sweep(plan, out) == records
    assert times(out) == before
    # The same cell here, beside nothing else, and there, beside another.
    run_cell(plan, LINEAR, tmp_path / "again")
    again = read_records(tmp_path / "again")[LINEAR]
    assert {name: again[name] for name in FOUND} == {name: records[LINEAR][name] for name in FOUND}
    assert {"machine", "versions", "date", "seconds", "train_seconds", "majority_share"} <= set(again)
    speed = records[Cell("letters", "linear", None)]
    assert len(speed["step_seconds"]) == len(speed["dense_inference_seconds"]) == 1
    assert speed["peak_bytes"] > 4 * speed["parameters"] > 0


def test_a_killed_sweep_goes_on_where_it_was(plan_path, tmp_path):
    out, steps = tmp_path / "out", "training.steps=150"
    command = [sys.executable, "-m", "saccade", "sweep", str(plan_path), "--out", str(out), "--only", "first"]
    process = subprocess.Popen([*command, "--set", steps], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not list((out / "records").glob("*.json")) and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    plan, before = read_plan(plan_path, [steps]), times(out)
    assert 1 <= len(before) < 3
    assert set(sweep(plan, out, parts=["first"])) == set(plan.first())
    assert before.items() <= times(out).items()


def test_a_failure_is_a_record_and_is_tried_again_when_asked(plan, monkeypatch, tmp_path):
    def fail(*args, **options):
        raise MemoryError(f"too large for {plan.frame.data_folder}/letters.csv\nand so on")

    with monkeypatch.context() as patch:
        patch.setattr(Prepared, "fit", fail)
        run_cell(plan, LINEAR, tmp_path)
    record = read_records(tmp_path)[LINEAR]
    assert (record["status"], record["reason"]) == ("failed", "MemoryError: too large for {data_folder}/letters.csv")
    only = Only(("letters",), ("linear",), (0,))
    assert sweep(plan, tmp_path, parts=["first"], only=only)[LINEAR] == record
    assert sweep(plan, tmp_path, parts=["first"], only=only, retry=True)[LINEAR]["status"] == "done"


def test_a_process_that_dies_takes_its_cell_alone(plan_path, tmp_path, monkeypatch):
    def start(target, args, daemon):
        return multiprocessing.get_context("fork").Process(target=os._exit, args=(9,), daemon=daemon)

    plan = read_plan(plan_path, ["mechanisms=['linear']"])
    monkeypatch.setattr("saccade.bench.sweep.processes._context", lambda: SimpleNamespace(Process=start))
    records = sweep(plan, tmp_path, parts=["first"])
    assert {record["status"] for record in records.values()} == {"failed"}
    assert "exit code 9" in records[LINEAR]["reason"]


def test_rows_without_their_data_are_skipped_and_come_later(plan, letters, tmp_path):
    hidden = letters.rename(letters.with_name("hidden.csv"))
    run_cell(plan, LINEAR, tmp_path)
    record = read_records(tmp_path)[LINEAR]
    assert record["status"] == "skipped"
    assert record["reason"].startswith("{data_folder}/letters.csv must be a file that can be read")
    hidden.rename(letters)
    only = Only(("letters",), ("linear",), (0,))
    assert sweep(plan, tmp_path, parts=["first"], only=only)[LINEAR]["status"] == "done"


def test_other_settings_are_refused_or_run_again(plan, plan_path, tmp_path):
    run_cell(plan, LINEAR, tmp_path)
    other, only = read_plan(plan_path, ["training.steps=2"]), Only(("letters",), ("linear",))
    with pytest.raises(ValueError, match="--redo"):
        sweep(other, tmp_path, parts=["first"], only=only)
    records = sweep(other, tmp_path, parts=["first"], only=only, redo=True)
    assert records[LINEAR]["settings"]["training"]["steps"] == 2


def test_unknown_parts_tasks_and_jobs(plan, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'first'"):
        sweep(plan, tmp_path, parts=["frist"])
    with pytest.raises(ValueError, match="did you mean 'letters'"):
        sweep(plan, tmp_path, only=Only(tasks=("letter",)))
    with pytest.raises(ValueError, match="jobs must be"):
        sweep(plan, tmp_path, jobs=0)

"""A plan small enough for a test, and records made by hand."""

from pathlib import Path

import pytest

from saccade.bench.report import finite
from saccade.bench.sweep.plan import Cell, Plan, read_plan

PLAN = """
mechanisms = ["linear", "local(left=2)"]
best = 1
best_seeds = [0, 1]
rounds = 1
speed_threads = 1
data_folder = "{folder}"

[data]
length = 64

[model]
width = 8
heads = 2
layers = 1
hidden = 8

[training]
steps = 3
batch_size = 5

[tasks.letters.data]
source = "{{data_folder}}/letters.csv"

[tasks.more]
mechanisms = "best"
[tasks.more.data]
source = "{{data_folder}}/letters.csv"
seed = 1
"""


@pytest.fixture
def plan_path(letters: Path) -> Path:
    path = letters.with_name("plan.toml")
    path.write_text(PLAN.format(folder=letters.parent), encoding="utf-8")
    return path


@pytest.fixture
def plan(plan_path: Path) -> Plan:
    return read_plan(plan_path)


@pytest.fixture
def made(plan: Plan):
    """A record as a cell of the plan would have left it."""

    def make(task, mechanism, seed=0, *, test=0.5, validation=0.5, seconds=1.0, dense=1.0, peak=10**6, status="done"):
        cell = Cell(task, mechanism, seed)
        record = {
            "task": task,
            "mechanism": mechanism,
            "seed": seed,
            "status": status,
            "reason": None if status == "done" else "ValueError: no",
            "settings": finite(plan.settings(cell)),
            "machine": {"cpu": "Abacus", "cores": 2, "gpu": None, "memory_bytes": 8 * 10**9, "system": "Loom"},
            "versions": {"python": "3", "torch": "2", "saccade": "0", "commit": None},
            "date": "2001-01-01 00:00 UTC",
            "seconds": 36.0,
        }
        scores = {
            "test_accuracy": test,
            "validation_accuracy": validation,
            "test_examples": 400,
            "majority_share": 0.25,
            "data_facts": {"classes": "a 60, b 60"},
        }
        rounds = {
            "step_seconds": [seconds] * 7,
            "inference_seconds": [seconds / 4] * 7,
            "dense_step_seconds": [dense] * 7,
            "dense_inference_seconds": [dense / 2] * 7,
            "peak_bytes": peak,
            "dense_peak_bytes": 4 * 10**6,
        }
        found = {"parameters": 1234, **(rounds if seed is None else scores)} if status == "done" else {}
        return cell, record | found

    return make

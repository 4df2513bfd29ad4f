import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from calls import refused

from saccade import __main__
from saccade.attention import MECHANISMS
from saccade.cli import run


def test_cost_prints_a_table_and_where_attention_dominates(capsys, tmp_path):
    out = tmp_path / "share.svg"
    options = ["--lengths", "256,64", "--width", "32", "--heads", "2", "--layers", "3", "--hidden", "64"]
    assert run(["cost", "full", "local(left=8)", *options, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "encoder of 3 layers, width 32, 2 heads, hidden 64; batch 1" in printed
    assert "from n = 129 on: full" in printed
    assert f"wrote {out}" in printed
    assert out.read_bytes().startswith(b"<?xml")
    assert "already exists" in refused(capsys, "cost", "--out", out)


def test_cost_as_json_knows_every_mechanism(capsys, monkeypatch):
    monkeypatch.setattr("saccade.bench.model_cost.LONGEST", 4096)
    assert run(["cost", ",".join(MECHANISMS), "--lengths", "64", "--width", "32", "--heads", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["mechanism"] for row in found["costs"]] == list(MECHANISMS)
    assert found["dominance"]["full"]["length"] == 2 * 32 + 4 * 32 + 1


def test_cost_of_a_recipe_is_that_of_its_model(capsys, tmp_path):
    path = tmp_path / "mine.toml"
    model = 'mechanism = "linear"\nwidth = 32\nheads = 2\nlayers = 3\nhidden = 64\nnorm = "post"'
    path.write_text(f"[model]\n{model}\n", encoding="utf-8")
    assert run(["cost", "--recipe", str(path), "--lengths", "64", "--heads", "4", "--causal", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["mechanism"] for row in found["costs"]] == ["full", "linear"]
    wanted = {"width": 32, "heads": 4, "layers": 3, "hidden": 64, "norm": "post", "dropout": True, "causal": True}
    assert found["model"].items() >= wanted.items()


def test_cost_counts_extra_tokens_of_a_recipe_and_of_the_command_line(capsys, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[model]\nwidth = 32\nheads = 2\nlayers = 1\nextra_tokens = 4\n", encoding="utf-8")
    models = []
    for options in ([], ["--extra-tokens", "6"]):
        assert run(["cost", "--recipe", str(path), "--lengths", "64", "--json", *options]) == 0
        models.append(json.loads(capsys.readouterr().out))
    assert [each["model"]["extra_tokens"] for each in models] == [4, 6]
    assert models[1]["costs"][0]["parameters"] - models[0]["costs"][0]["parameters"] == 2 * 32
    assert "extra_tokens must be a whole number, at least 0, got -1" in refused(capsys, "cost", "--extra-tokens", "-1")


def test_bench_prints_the_table_and_writes_the_rest(capsys, tmp_path):
    out = tmp_path / "out"
    options = ["--lengths", "32,16", "--heads", "2", "--head-dim", "4", "--rounds", "1", "--threads", "1"]
    assert run(["bench", "local(left=2)", "linear", *options, "--out", str(out)]) == 0
    printed, shown = capsys.readouterr()
    assert printed.startswith("attention alone: batch 1, 2 heads of 4, fp32\n")
    assert f"everything is in {out}" in printed
    assert "n = 32: warming up linear" in shown
    records = [json.loads(line) for line in (out / "bench.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [each["mechanism"] for each in records[:3]] == ["full", "local(left=2)", "linear"]
    assert [each["length"] for each in records] == [16] * 3 + [32] * 3
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "never overwritten" in refused(capsys, "bench", "--out", out)


def test_bench_as_json_prints_nothing_else(capsys, tmp_path):
    options = ["--lengths", "16", "--heads", "2", "--head-dim", "4", "--rounds", "1", "--forward-only", "--json"]
    assert run(["bench", "linear", *options, "--dtype", "bf16", "--causal", "--out", str(tmp_path / "out")]) == 0
    full, linear = json.loads(capsys.readouterr().out)
    assert (full["mechanism"], linear["mechanism"]) == ("full", "linear")
    assert linear["forward_backward_seconds"] == []
    assert linear["setting"]["causal"]


def test_stopping_a_bench_keeps_what_is_done(capsys, tmp_path, monkeypatch):
    from saccade.bench.race import _Race

    real = _Race.run

    def stops(race, n):
        if n == 32:
            raise KeyboardInterrupt
        real(race, n)

    monkeypatch.setattr(_Race, "run", stops)
    options = ["--lengths", "16,32", "--heads", "2", "--head-dim", "4", "--rounds", "1"]
    assert run(["bench", "linear", *options, "--out", str(tmp_path / "out")]) == 130
    assert "stopped before n = 32" in capsys.readouterr().out
    assert len((tmp_path / "out/bench.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_cost_and_bench_need_nothing_that_training_needs(tmp_path):
    program = """
import sys
sys.modules.update(dict.fromkeys(["accelerate", "datasets", "psutil", "safetensors"]))
from saccade.cli import run
small = ["linear", "--lengths", "16", "--heads", "2"]
sys.exit(run(["cost", *small]) or run(["bench", *small, "--head-dim", "4", "--rounds", "1", "--out", sys.argv[1]]))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__main__.__file__).parents[1])}
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cost", "bigbird"], "did you mean 'big_bird'"),
        (["cost", "full", "full"], "each only once"),
        (["cost", "--lengths", "1k"], "lengths must be whole numbers with commas between them"),
        (["cost", "--width", "10"], "width must be a multiple of the 8 heads, got 10"),
        (["cost", "--batch", "0"], "batch must be at least 1, got 0"),
        (["cost", "--out", "a.gif"], "must be a file that ends in .png or .svg"),
        (["cost", "--recipe", "no.toml"], "must be an existing TOML file"),
        (["cost", "--layer-types", "full"], "MECHANISM must be left out with --layer-types, which does not read it"),
        (["cost", "--layer-types", "--causal"], "--causal must be left out with --layer-types"),
        (["cost", "--layer-types", "--kernel", "1"], "kernel must be a whole number, at least 2, got 1"),
        (["bench", "bigbird"], "did you mean 'big_bird'"),
        (["bench", "--lengths", "0"], "each at least 1"),
        (["bench", "--rounds", "0"], "rounds must be at least 1, got 0"),
        (["bench", "--threads", "0"], "threads must be at least 1, got 0"),
        (["bench", "--dtype", "fp23"], "did you mean 'fp32'"),
        (["bench", "--heads", "-1"], "heads must be at least 1, got -1"),
    ],
)
def test_cost_and_bench_refuse(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_cost_shows_layer_types(capsys):
    assert run(["cost", "--layer-types", "--lengths", "64", "--width", "32", "--radius", "3", "--kernel", "5"]) == 0
    printed = capsys.readouterr().out
    assert "attention, 7 near" in printed
    assert "dilated, kernel 5" in printed
    assert run(["cost", "--layer-types", "--lengths", "64", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sizes"] == {"width": 512, "radius": 64, "kernel": 3}

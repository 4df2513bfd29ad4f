import json

import pytest
from calls import SMALL, refused

from saccade.cli import run


def test_compare_prints_the_table_and_writes_the_rest(capsys, tmp_path, rows, monkeypatch):
    monkeypatch.setattr("saccade.bench.compare.ROUNDS", 1)
    out = tmp_path / "out"
    options = ["--mechanisms", "local(left=2, right=0)", "--data", str(rows), "--length", "64", "--seed", "5"]
    assert run(["compare", *options, "--out", str(out), *SMALL]) == 0
    printed, shown = capsys.readouterr()
    assert printed.startswith("- data: ")
    assert "| `local(left=2, right=0)` |" in printed
    assert printed.endswith(f"everything is in {out}\n")
    assert "training full" in shown
    records = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [each["mechanism"] for each in records] == ["full", "local(left=2, right=0)"]
    assert records[0]["seeds"]["training"] == 5
    assert records[0]["settings"]["training"]["steps"] == 3
    assert "never overwritten" in refused(capsys, "compare", "--data", rows, "--out", out)


def test_compare_fails_if_all_do(capsys, tmp_path, rows):
    wild = ["--set", "training.learning_rate=1e30", "--set", "training.warmup=0.0", "--set", "training.clip=1e30"]
    arguments = ["--mechanisms", "full", "--data", str(rows), "--out", str(tmp_path / "out"), *SMALL, *wild]
    assert run(["compare", *arguments]) == 1
    assert "`full` failed: FloatingPointError: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mechanisms", "full, locl"], "did you mean 'local'"),
        (["--mechanisms", "local, local"], "each only once"),
        (["--data", "stdlb"], "did you mean 'stdlib'"),
        (["--data", "no.csv"], "no.csv"),
        (["--length", "0"], "length must be at least 1, got 0"),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--batch-size", "-1"], "batch_size must be at least 1, got -1"),
        (["--set", "model.widht=8"], "did you mean 'model.width'"),
        (["--set", "model.heads=0"], "--set model.heads=0: model.heads must be at least 1, got 0"),
        (
            ["--set", "model.width=10", "--set", "model.heads=4"],
            "model.width must be a multiple of the 4 heads, got 10",
        ),
        (["--set", "width"], "--set must be of the form a.b=value"),
        (["--recipe", "no.toml"], "must be an existing TOML file"),
    ],
)
def test_compare_refuses(capsys, tmp_path, arguments, message):
    out = tmp_path / "out"
    assert message in refused(capsys, "compare", *arguments, "--out", out)
    assert not out.exists()

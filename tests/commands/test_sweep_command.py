import json

import pytest
from calls import SMALL, refused

from saccade.cli import run


def test_sweep_runs_one_row_and_writes_the_page(capsys, tmp_path, rows):
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text(f"[tasks.mine.data]\nsource = '{rows}'\nlength = 64\n", encoding="utf-8")
    only = ["--only", "first", "--task", "mine", "--mechanism", "linear", "--seed", "3"]
    assert run(["sweep", str(plan), "--out", str(out), *only, *SMALL]) == 0
    printed, shown = capsys.readouterr()
    assert f"1 records in {out}, page: {out / 'results.md'}" in printed
    assert "[1/1] mine, linear, seed 3: test " in shown
    assert "## mine" in (out / "results.md").read_text(encoding="utf-8")
    (record,) = [json.loads(path.read_text(encoding="utf-8")) for path in (out / "records").iterdir()]
    assert (record["status"], record["settings"]["training"]["steps"]) == ("done", 3)


def test_sweep_fails_where_a_row_does(capsys, tmp_path, rows):
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text(f"[tasks.mine.data]\nsource = '{rows}'\nlength = 64\n", encoding="utf-8")
    wild = ["--set", "training.learning_rate=1e30", "--set", "training.warmup=0.0", "--set", "training.clip=1e30"]
    only = ["--only", "first", "--mechanism", "linear"]
    assert run(["sweep", str(plan), "--out", str(out), *only, *SMALL, *wild]) == 1
    printed, shown = capsys.readouterr()
    assert "failed: mine, linear, seed 0; run them again with --retry" in printed
    assert "failed, FloatingPointError: " in shown


def test_sweep_that_is_stopped_says_how_to_go_on(capsys, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("saccade.bench.sweep.run.run_cells", stop)
    (tmp_path / "plan.toml").write_text("[tasks.mine]", encoding="utf-8")
    assert run(["sweep", str(tmp_path / "plan.toml"), "--out", str(tmp_path / "out")]) == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (None, [], "must be an existing TOML file"),
        ("", [], "tasks must be at least one table"),
        ("[tasks.mine]", ["--only", "frist"], "did you mean 'first'"),
        ("[tasks.mine]", ["--only", "first", "--task", "mien"], "did you mean 'mine'"),
        ("[tasks.mine]", ["--only", "first", "--mechanism", "locl"], "did you mean 'local'"),
        ("[tasks.mine]", ["--jobs", "0"], "jobs must be"),
    ],
)
def test_sweep_refuses(capsys, tmp_path, text, arguments, message):
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    if text is not None:
        plan.write_text(text, encoding="utf-8")
    assert message in refused(capsys, "sweep", plan, *arguments, "--out", out)
    assert not out.exists()


def test_a_folder_that_cannot_be_written_is_named(capsys, tmp_path, rows):
    (tmp_path / "file").write_text("mine")
    message = refused(capsys, "compare", "--data", rows, "--out", tmp_path / "file" / "out")
    assert str(tmp_path / "file") in message
    assert (tmp_path / "file").read_text() == "mine"

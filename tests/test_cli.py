import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from saccade import __main__, __version__
from saccade.attention import MECHANISMS
from saccade.claims import PROBES
from saccade.cli import run
from saccade.training import Interrupted

SMALL = [
    *("--set", "model.width=8", "--set", "model.heads=2", "--set", "model.layers=1", "--set", "model.hidden=8"),
    *("--set", "training.steps=3", "--set", "training.batch_size=5"),
]
LEAKY = """
import os
import sys
import torch

print("hello from the module")

def leaky(q, k, v, key_mask=None, causal=False):
    print("hello from the call")
    os.write(1, b"hello from below Python\\n")
    return torch.softmax(q @ k.mT, -1) @ v

def broken():
    raise RuntimeError("no")

def exits():
    sys.exit(0)
"""


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "letters.csv"
    lines = [f"{'ab'[i % 2] * (i % 13 + 1)},{'ab'[i % 2]}" for i in range(120)]
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    return path


@pytest.fixture
def recipe(tmp_path, rows):
    path = tmp_path / "letters.toml"
    path.write_text(f'[data]\nsource = "{rows.as_posix()}"\n', encoding="utf-8")
    return path


def refused(capsys, *arguments, code=2):
    """What is said about arguments that are refused: on stderr, without a traceback."""
    assert run([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("error: ")
    return err


def process(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(Path(__main__.__file__).parents[1]), **options}
    command = [sys.executable, "-m", "saccade", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


# The whole program


def test_as_a_program():
    done = process("show", "local(left=2)", "--length", "16", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.startswith("local(left=2)\nn = 16, ")
    failed = process("show", "locl")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: mechanism must be one of ")
    assert "did you mean 'local'" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_help_of_every_command_has_an_example(capsys):
    assert run(["--help"]) == 0
    commands = re.findall(r"^  (\w+)  ", capsys.readouterr().out, re.MULTILINE)
    assert {"show", "cost", "bench", "compare", "train", "evaluate", "check"} <= set(commands)
    for command in commands:
        assert run([command, "--help"]) == 0
        assert f"Example: saccade {command} " in capsys.readouterr().out


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_unknown_commands_and_options_name_the_nearest(capsys):
    assert "'show'" in refused(capsys, "shwo")
    assert "--length" in refused(capsys, "show", "local", "--lenght", "3")
    assert "try: saccade show --help" in refused(capsys, "show", "local", "--length", "long")


def test_debug_shows_the_traceback(monkeypatch):
    with pytest.raises(ValueError, match="did you mean 'local'"):
        run(["--debug", "show", "locl"])
    with pytest.raises(ValueError, match="did you mean 'local'"):
        run(["show", "locl", "--debug"])
    monkeypatch.setenv("SACCADE_DEBUG", "1")
    with pytest.raises(ValueError, match="did you mean 'local'"):
        run(["show", "locl"])


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (Interrupted(Path("runs/a"), 7), 130, "stopped after step 7; everything is saved"),
        (KeyboardInterrupt(), 130, ""),
        (FloatingPointError("loss must be finite, got nan"), 1, "error: loss must be finite, got nan"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (PermissionError(13, "Permission denied", "out"), 2, "Permission denied"),
        (ModuleNotFoundError("No module named 'accelerate'", name="accelerate"), 2, "pip install 'saccade[train]'"),
        (KeyError("surprise"), 1, "error: KeyError: 'surprise' (add --debug for the traceback)"),
    ],
)
def test_what_goes_wrong_is_a_line_and_a_code(capsys, monkeypatch, error, code, text):
    def fails(*arguments, **options):
        raise error

    monkeypatch.setattr("saccade.commands.show.look", fails)
    assert run(["show", "local"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert "Traceback" not in err


def test_without_its_libraries_the_command_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "saccade.cli", None)
    with pytest.raises(ModuleNotFoundError):
        __main__.main()
    monkeypatch.delitem(sys.modules, "saccade.cli")
    monkeypatch.setitem(sys.modules, "typer", None)
    assert __main__.main() == 2
    assert capsys.readouterr().err == "error: the command line needs: pip install 'saccade[cli]'\n"


# show


def test_show_lists_the_mechanisms(capsys):
    assert run(["show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(MECHANISMS)
    assert all(len(line.split()) > 2 for line in lines)


def test_show_draws_into_a_file_and_overwrites_only_on_request(capsys, tmp_path):
    path = tmp_path / "a.svg"
    assert run(["show", "Local(2) | Global(1)", "--length", "16", "--out", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n"
    before = path.read_bytes()
    assert before.startswith(b"<?xml")
    assert "already exists" in refused(capsys, "show", "full", "--length", "8", "--out", path)
    assert path.read_bytes() == before
    assert run(["show", "full", "--length", "8", "--overwrite", "--out", str(path)]) == 0
    assert path.read_bytes() != before


def test_show_all_is_the_gallery(capsys, tmp_path):
    assert run(["show", "all", "--length", "16", "--out", str(tmp_path / "a.svg")]) == 0
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {name}" in drawn for name in MECHANISMS)


def test_show_options_reach_the_picture(capsys):
    assert run(["show", "local(left=1)", "strided(stride=4)", "--length", "12", "--causal", "--heads", "2"]) == 0
    out = capsys.readouterr().out
    assert "local(left=1), causal" in out
    assert "strided(stride=4), causal" in out
    assert out.count("head 1: ") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bigbird"], "did you mean 'big_bird'"),
        (["local(lft=3)"], "did you mean 'left'"),
        (["local(left=-1)"], "must be"),
        (["local("], "must be an expression"),
        (["full", "--length", "0"], "length must be from 1 to 8,192, got 0"),
        (["full", "--heads", "0"], "heads must be at least 1, got 0"),
        (["full", "--out", "a.gif"], "must be a file that ends in .png or .svg"),
        (["full", "--out", "no/such/folder/a.png"], "must be an existing folder"),
    ],
)
def test_show_refuses(capsys, arguments, message):
    assert message in refused(capsys, "show", *arguments)


def test_show_positions(capsys, tmp_path):
    assert run(["show", "positions", "rotary", "alibi", "--length", "16"]) == 0
    printed = capsys.readouterr().out
    assert "rotary: turns q and k" in printed
    assert "alibi: " in printed
    path = tmp_path / "p.png"
    assert run(["show", "positions", "alibi", "--out", str(path)]) == 0
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert capsys.readouterr().out == f"wrote {path}\n"
    assert "already exists" in refused(capsys, "show", "positions", "--out", path)
    assert "did you mean 'rotary'" in refused(capsys, "show", "positions", "rotari")
    assert "--causal is not for positions" in refused(capsys, "show", "positions", "--causal")
    assert "length must be from 2 to 4,096, got 1" in refused(capsys, "show", "positions", "--length", "1")


# show a run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run that no test changes, on texts of 12 bytes."""
    folder = tmp_path_factory.mktemp("trained")
    rows = [f"{'ab'[i % 2] * 9}{i:03},{'ab'[i % 2]}" for i in range(60)]
    (folder / "rows.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    recipe = folder / "recipe.toml"
    recipe.write_text(f'[data]\nsource = "{(folder / "rows.csv").as_posix()}"\n', encoding="utf-8")
    assert run(["train", str(recipe), "--out", str(folder / "run"), *SMALL]) == 0
    return folder / "run"


def test_show_of_a_run_is_the_evidence(capsys, trained):
    assert run(["show", str(trained), "--examples", "3"]) == 0
    out = capsys.readouterr().out
    assert "1 layer of 2 heads of full" in " ".join(out.split())
    assert "read 3 examples of the test split, 12 tokens each" in out
    for part in ("What a pattern would keep", "local(left=2)", "Singular values", "saccade compare --recipe "):
        assert part in out


def test_show_of_a_run_weighs_the_patterns_that_are_given(capsys, trained):
    arguments = ["Local(1) | Global(1)", "local(left=3)", "--split", "train", "--length", "9", "--json"]
    assert run(["show", str(trained), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["pattern"] for each in found["patterns"]} == {"Local(1) | Global(1)", "local(left=3)"}
    assert found["split"] == "train"
    assert set(found["lengths"]) == {9}
    assert found["run"] == str(trained)


def test_show_of_a_run_draws_into_a_file(capsys, tmp_path, trained):
    path = tmp_path / "a.svg"
    assert run(["show", str(trained), "--examples", "2", "--out", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n"
    assert "<!-- queries -->" in path.read_text(encoding="utf-8")
    assert "already exists" in refused(capsys, "show", trained, "--out", path)
    again = ["--out", str(path), "--overwrite", "--json", "--grid", "3x4"]
    assert run(["show", str(trained), "--examples", "2", *again]) == 0
    assert json.loads(capsys.readouterr().out)["lengths"] == [12, 12]
    assert "<!-- rows -->" in path.read_text(encoding="utf-8")


def test_a_mechanism_goes_before_a_folder_of_its_name(capsys, tmp_path, monkeypatch):
    (tmp_path / "local").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run(["show", "local", "--length", "8"]) == 0
    assert "n = 8" in capsys.readouterr().out
    assert "run must be a folder that saccade train has written" in refused(capsys, "show", "./local")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--causal"], "--causal is for mechanisms, not for a run"),
        (["--seed", "0"], "--seed is for mechanisms, not for a run"),
        (["--examples", "0"], "examples must be at least 1, got 0"),
        (["--length", "0"], "length must be from 1 to 8,192, got 0"),
        (["--split", "tset"], "split must be one of test, train, validation, got 'tset'"),
        (["--grid", "3by4"], "grid must be HEIGHTxWIDTH, such as 8x12, got '3by4'"),
        (["linear"], "mechanism must be a pattern, as only a pattern leaves pairs out, got 'linear'"),
        (["locl"], "did you mean 'local'"),
        (["--out", "a.gif"], "must be a file that ends in .png or .svg"),
    ],
)
def test_show_of_a_run_refuses(capsys, trained, options, message):
    assert message in refused(capsys, "show", trained, *options)


def test_a_grid_of_another_size_is_refused_before_anything_is_drawn(capsys, trained):
    assert "as many cells as there are tokens (12), got '3x5'" in refused(capsys, "show", trained, "--grid", "3x5")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["full", "--examples", "3"], "--examples is for a run, not for mechanisms"),
        (["full", "--json"], "--json is for a run, not for mechanisms"),
        (["bigbird"], "did you mean 'big_bird'?); and there is no folder of a run at that path"),
        (["runs/none"], "got 'runs/none'; and there is no folder of a run at that path"),
    ],
)
def test_show_of_what_is_neither_mechanism_nor_run(capsys, arguments, message):
    assert message in refused(capsys, "show", *arguments)


# cost and bench


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


# compare


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


# sweep


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


# train and evaluate


def test_train_then_evaluate(capsys, tmp_path, recipe, rows):
    out = tmp_path / "run"
    assert run(["train", str(recipe), "--out", str(out), *SMALL]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^accuracy: [\d.]+% ± [\d.]+%$", printed, re.MULTILINE)
    assert printed.endswith(f"everything is in {out}\n")
    assert run(["evaluate", str(out), "--split", "validation"]) == 0
    assert "split: validation" in capsys.readouterr().out
    assert run(["evaluate", str(out), "--data", str(rows), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["split"] in ("test", "all")
    assert "split must be one of" in refused(capsys, "evaluate", out, "--split", "tset")
    assert "--set must be a change of the data" in refused(capsys, "evaluate", out, "--set", "model.width=8")
    other = rows.rename(rows.with_name("other.csv"))
    rows.write_text(other.read_text(encoding="utf-8"), encoding="utf-8")
    assert "split must be left out" in refused(capsys, "evaluate", out, "--data", other, "--split", "test")
    assert "vocabulary that the model reads" in refused(capsys, "evaluate", out, "--data", "listops")
    assert "already exists" in refused(capsys, "train", recipe, "--out", out)
    assert run(["train", "--resume", str(out)]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "give a RECIPE"),
        (["train", "a.toml", "--resume", "run"], "or --resume DIR alone"),
        (["train", "--resume", "run", "--set", "training.steps=3"], "or --resume DIR alone"),
        (["train", "no.toml"], "must be an existing TOML file, got 'no.toml'"),
        (["train", "--resume", "no"], "run must be a folder that saccade train has written"),
        (["evaluate", "no"], "run must be a folder that saccade train has written"),
    ],
)
def test_train_and_evaluate_refuse(capsys, arguments, message):
    assert message in refused(capsys, *arguments)


# check


@pytest.fixture
def leaky(tmp_path, monkeypatch):
    (tmp_path / "leaky_attention.py").write_text(LEAKY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield "leaky_attention"
    sys.modules.pop("leaky_attention", None)


def test_check_prints_nothing_but_json(capfd, leaky):
    assert run(["check", f"{leaky}:leaky", "--json"]) == 1
    printed, said = capfd.readouterr()
    found = {row["probe"]: row["status"] for row in json.loads(printed)}
    assert found["prefix_causality"] == found["padding"] == "failed"
    assert "hello from the module" in said
    assert "hello from the call" in said
    assert "hello from below Python" in said


def test_check_of_a_mechanism_uses_its_claims(capsys):
    assert run(["check", "local(left=3)"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["probe", "status", "violation", "where"]
    assert all("passed" in line or "not claimed" in line for line in lines[1:])
    assert [line.split()[0] for line in lines[1:] if "its claims do not name" in line] == ["permutation"]


def test_check_of_a_gated_mechanism_reads_its_gates_off_the_keys(capsys):
    skipped = [f"--skip={name}" for name in ("padding", "batch", "hidden_nan", "empty_rows", "lengths", "gradients")]
    assert run(["check", "rfa(features=8, gate=True)", *skipped]) == 0
    found = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:])
    assert [name for name in found if found[name] == "passed"] == ["prefix_causality", "chunk", "step", "export"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("locl", "did you mean 'local'"),
        ("leaky_attention:leeky", "did you mean 'leaky'"),
        ("no_such_module:f", "no_such_module"),
        ("leaky_attention:broken", "broken"),
        ("leaky_attention:exits", "exits raised it called sys.exit(0)"),
    ],
)
def test_check_refuses(capsys, leaky, target, message):
    assert run(["check", target]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_check_leaves_out_what_is_skipped(capsys, leaky):
    skipped = [option for probe in PROBES if probe.name != "chunk" for option in ("--skip", probe.name)]
    assert run(["check", f"{leaky}:leaky", *skipped]) == 0
    assert capsys.readouterr().out.count("left out by skip") == len(PROBES) - 1
    assert "did you mean 'weights'" in refused(capsys, "check", "full", "--skip", "weight")


def test_check_lists_its_probes(capsys):
    assert run(["check", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [probe.name for probe in PROBES]
    assert all(probe.shows in line for probe, line in zip(PROBES, lines, strict=True))


def test_check_of_a_mechanism_is_on_qkv(capsys):
    assert "on must be qkv for a mechanism, got 'x'" in refused(capsys, "check", "full", "--on", "x")

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
    assert {"show", "compare", "train", "evaluate", "check"} <= set(commands)
    for command in ("show", "compare", "train", "evaluate", "check"):
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

    monkeypatch.setattr("saccade.cli.look", fails)
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
        (["--set", "width"], "--set must be of the form a.b=value"),
        (["--recipe", "no.toml"], "must be an existing TOML file"),
    ],
)
def test_compare_refuses(capsys, tmp_path, arguments, message):
    out = tmp_path / "out"
    assert message in refused(capsys, "compare", *arguments, "--out", out)
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
    assert [line.split()[0] for line in lines[1:] if "its claims do not name" in line] == ["permutation", "step"]


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

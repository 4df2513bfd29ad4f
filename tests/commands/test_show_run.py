import json

import pytest
from calls import SMALL, refused

from saccade.cli import run


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

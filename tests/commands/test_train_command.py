import json
import re

import pytest
from calls import SMALL, refused

from saccade.cli import run


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

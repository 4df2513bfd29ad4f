import json
from pathlib import Path

import pytest
from calls import SMALL

from saccade.bench import runs_report
from saccade.cli import run
from saccade.tasks.run_folder import read_record


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that differ in their mechanism."""
    folder = tmp_path_factory.mktemp("letters")
    rows = [f"{'ab'[i % 2] * (i % 13 + 1)},{'ab'[i % 2]}" for i in range(120)]
    (folder / "letters.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    (folder / "recipe.toml").write_text(f'[data]\nsource = "{folder}/letters.csv"\n', encoding="utf-8")
    for name in ("full", "linear"):
        options = ["--out", f"{folder}/{name}", *SMALL, "--set", f"model.mechanism={name}"]
        assert run(["train", f"{folder}/recipe.toml", *options]) == 0
    return folder / "full", folder / "linear"


def test_what_a_run_says_of_itself(runs):
    record = read_record(runs[0])
    assert (record["run"], record["task"]) == ("full", "classification")
    assert record["recipe"]["model"]["width"] == 8
    assert record["scores"] == json.loads((runs[0] / "metrics.json").read_text())
    assert 0 < record["train_seconds"] < 600
    assert record["peak_bytes"] > 1e7
    assert record["parameters"] > 1000


def test_runs_of_a_task_stand_in_one_table(runs, capsys):
    assert run(["report", *map(str, runs)]) == 0
    printed = capsys.readouterr().out
    first, second = (line for line in printed.splitlines() if line.startswith("| `"))
    assert printed.startswith("## classification: letters")
    assert first.startswith("| `full` |  |")
    assert second.startswith('| `linear` | `model.mechanism="linear"` |')
    assert " % |" not in first
    assert "Made on: " in printed


def test_runs_are_added_to_a_page(runs, tmp_path, capsys):
    page = tmp_path / "docs/runs.md"
    assert run(["report", str(runs[0]), "--out", str(page)]) == 0
    assert run(["report", *map(str, runs), "--out", str(page)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"2 runs in {page}"
    records = runs_report.read_records(page.with_suffix(".jsonl"))
    assert [record["run"] for record in records] == ["full", "linear"]
    assert page.read_text(encoding="utf-8") == runs_report.to_page(records, "runs")


def test_each_language_of_a_run_has_its_scores(runs):
    """And what the run does not write is left empty."""
    record = read_record(runs[0]) | {"task": "seq2seq", "run": "two"}
    data = record["recipe"]["data"]
    both, german = (record["recipe"] | {"data": data | {"write": write}} for write in (["de", "fr"], ["de"]))
    two = record | {
        "recipe": both,
        "scores": {"bleu_de": 30.25, "bleu_fr": 40.5, "per_de": 0.125, "seconds_de": 3},
    }
    one = two | {"run": "one", "recipe": german, "scores": {"bleu": 31.0}}
    (table,) = runs_report.to_tables([two, one])
    names, _, first, second = (row.split(" | ") for row in table.splitlines()[2:6])
    assert names[2:6] == ["bleu", "bleu de", "bleu fr", "per de"]
    assert [cell.strip() for cell in first[2:6]] == ["", "30.25", "40.5", "12.5%"]
    assert [cell.strip() for cell in second[2:6]] == ["31", "", "", ""]


def test_a_new_record_takes_the_place_of_the_old_one():
    old = [{"task": "a", "run": "x", "n": 1}, {"task": "b", "run": "x", "n": 2}]
    assert runs_report.with_these(old, [{"task": "a", "run": "x", "n": 3}])[0]["n"] == 3
    with pytest.raises(ValueError, match="runs must be folders of different names, got 'x, x'"):
        runs_report.with_these([], old[:1] * 2)
    assert [record["n"] for record in runs_report.with_these(old, [{"task": "c", "run": "x", "n": 4}])] == [1, 2, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [("{}", "line 1: line must be the record of a run"), ("no", "line 1: line must be the record of a run")],
)
def test_records_that_are_none(tmp_path, content, message):
    (tmp_path / "page.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        runs_report.read_records(tmp_path / "page.jsonl")


def test_what_is_refused(runs, tmp_path, capsys):
    def refused(*arguments):
        assert run(["report", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    assert "--out must be a file that ends in .md, got 'page.txt'" in refused(runs[0], "--out", tmp_path / "page.txt")
    (tmp_path / "mine.md").write_text("mine", encoding="utf-8")
    assert "is no page of this command and is never overwritten" in refused(runs[0], "--out", tmp_path / "mine.md")
    assert (tmp_path / "mine.md").read_text(encoding="utf-8") == "mine"
    assert "run must be a folder that saccade train has written" in refused(tmp_path)


def test_a_damaged_record(runs, tmp_path):
    for name in ("recipe.toml", "model.safetensors"):
        (tmp_path / name).write_bytes((runs[0] / name).read_bytes())
    with pytest.raises(ValueError, match=r"record\.json must be the record of a run's data"):
        read_record(tmp_path)


def test_the_page_in_the_docs_is_what_its_records_say():
    page = Path(__file__).parents[2] / "docs/results.md"
    records = runs_report.read_records(page.with_suffix(".jsonl"))
    assert page.read_text(encoding="utf-8") == runs_report.to_page(records, "results")

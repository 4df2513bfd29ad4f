import builtins
import json
from dataclasses import replace

import pytest
import torch

from saccade.bench import compare as module
from saccade.bench.compare import compare, comparison_recipe
from saccade.bench.measure import ROUNDS
from saccade.tasks.classification import Prepared, prepare, score
from saccade.training import Interrupted

fit = Prepared.fit


def names(path):
    return sorted(each.name for each in path.iterdir())


def records(path):
    return [json.loads(line) for line in (path / "results.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", 1)


def test_all_are_trained_and_everything_is_written(small_recipe, tmp_path):
    states = []
    found = compare(small_recipe, "local(left=2), linear", tmp_path / "out", on_change=states.append)
    assert [row.mechanism for row in found.rows] == ["full", "local(left=2)", "linear"]
    assert {row.status for row in found.rows} == {"done"}
    assert names(tmp_path / "out") == ["picture.png", "recipe.toml", "report.md", "results.jsonl"]
    assert [each["mechanism"] for each in records(tmp_path / "out")] == ["full", "local(left=2)", "linear"]
    assert (tmp_path / "out/picture.png").read_bytes().startswith(b"\x89PNG")
    report = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert "| `local(left=2)` |" in report
    for row in found.rows:
        assert len(row.step_seconds) == len(row.inference_seconds) == ROUNDS
        assert row.peak_bytes > 4 * row.parameters > 0
    assert [state.step for state in states if state.running == "linear"] == [1, 2, 3]
    assert states[-1].seconds_left[0] == 0


@pytest.mark.usefixtures("quick")
def test_scores_are_those_of_the_task(small_recipe, tmp_path):
    found = compare(small_recipe, ["linear"], tmp_path / "out", baseline=False)
    prepared = prepare(replace(small_recipe, model=replace(small_recipe.model, mechanism="linear")))
    trained = prepared.fit(quiet=True)
    expected = score(prepared.model, prepared.data.test, prepared.data.vocabulary.pad_id)
    (row,) = found.rows
    assert row.accuracy == pytest.approx(expected.accuracy)
    assert row.loss == trained.loss
    assert found.majority_share == prepared.data.majority_share(prepared.data.test)


@pytest.mark.usefixtures("quick")
def test_the_recipe_that_is_kept_makes_the_same_again(small_recipe, tmp_path):
    first = compare(small_recipe, "linear", tmp_path / "one", baseline=False)
    again = comparison_recipe(tmp_path / "one/recipe.toml")
    second = compare(again, "linear", tmp_path / "two", baseline=False)
    assert again == small_recipe
    assert torch.equal(first.rows[0].right, second.rows[0].right)
    assert first.rows[0].loss == second.rows[0].loss


@pytest.mark.usefixtures("quick")
def test_a_mechanism_that_fails_leaves_the_others(small_recipe, tmp_path, monkeypatch):
    def fails_for_local(prepared, **options):
        if prepared.recipe.model.mechanism == "local":
            raise RuntimeError("too large\nand a second line")
        return fit(prepared, **options)

    monkeypatch.setattr(Prepared, "fit", fails_for_local)
    found = compare(small_recipe, "local, linear", tmp_path / "out")
    assert [row.status for row in found.rows] == ["done", "failed", "done"]
    assert found.rows[1].reason == "RuntimeError: too large"
    assert [each["status"] for each in records(tmp_path / "out")] == ["done", "failed", "done"]
    assert "`local` failed: RuntimeError: too large" in (tmp_path / "out/report.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("quick")
def test_a_loss_that_is_not_finite_is_a_failed_row(small_recipe, tmp_path):
    wild = replace(small_recipe, training=replace(small_recipe.training, learning_rate=1e30, warmup=0.0, clip=1e30))
    found = compare(wild, "linear", tmp_path / "out")
    assert {row.status for row in found.rows} == {"failed"}
    assert "must be finite" in found.rows[0].reason
    assert names(tmp_path / "out") == ["recipe.toml", "report.md", "results.jsonl"]
    assert "There is nothing to choose from" in (tmp_path / "out/report.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("stop", [Interrupted(None, 2), KeyboardInterrupt()])
def test_stopping_keeps_what_is_done(small_recipe, tmp_path, monkeypatch, stop):
    def stops_at_local(prepared, **options):
        if prepared.recipe.model.mechanism == "local":
            raise stop
        return fit(prepared, **options)

    monkeypatch.setattr(Prepared, "fit", stops_at_local)
    found = compare(small_recipe, "local, linear", tmp_path / "out")
    assert [row.status for row in found.rows] == ["done", "stopped", "stopped"]
    assert found.stopped
    assert [each["mechanism"] for each in records(tmp_path / "out")] == ["full"]
    assert "picture.png" in names(tmp_path / "out")


@pytest.mark.usefixtures("quick")
def test_what_is_done_is_written_before_the_next_begins(small_recipe, tmp_path, monkeypatch):
    seen = []

    def looks_first(prepared, **options):
        path = tmp_path / "out/results.jsonl"
        seen.append(len(records(tmp_path / "out")) if path.exists() else 0)
        return fit(prepared, **options)

    monkeypatch.setattr(Prepared, "fit", looks_first)
    compare(small_recipe, "local, linear", tmp_path / "out")
    assert seen == [0, 1, 2]


@pytest.mark.usefixtures("quick")
def test_without_matplotlib_there_are_table_and_records(small_recipe, tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    compare(small_recipe, "linear", tmp_path / "out")
    assert names(tmp_path / "out") == ["recipe.toml", "report.md", "results.jsonl"]
    assert "pip install 'saccade[plots]'" in (tmp_path / "out/report.md").read_text(encoding="utf-8")


def test_a_used_folder_is_refused_and_stays_as_it_was(small_recipe, tmp_path):
    with pytest.raises(FileExistsError, match="never overwritten; choose another folder with --out"):
        compare(small_recipe, "linear", tmp_path)
    assert names(tmp_path) == ["letters.csv"]
    with pytest.raises(FileExistsError):
        compare(small_recipe, "linear", tmp_path / "letters.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileExistsError):
        compare(small_recipe, "linear", tmp_path / "empty")


def test_bad_data_leaves_no_folder(small_recipe, tmp_path):
    absent = replace(small_recipe, data=replace(small_recipe.data, source=str(tmp_path / "no.csv")))
    with pytest.raises(OSError, match=r"no\.csv"):
        compare(absent, "linear", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_a_comparison_without_a_recipe_has_its_own_defaults(tmp_path):
    (tmp_path / "mine.toml").write_text("[training]\nsteps = 7\n", encoding="utf-8")
    assert comparison_recipe(tmp_path / "mine.toml").training.steps == 7
    assert comparison_recipe(tmp_path / "mine.toml", ["training.steps=9"]).training.steps == 9
    assert comparison_recipe(None) != comparison_recipe(tmp_path / "mine.toml")

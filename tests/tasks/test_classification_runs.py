"""One label a sequence: what a run holds, how it is scored on other data, and what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from labelling_cases import LISTOPS, RECIPE, contents, interrupt_at, reviews, write_csv

from saccade.data import DataSettings, Split
from saccade.tasks import classification, recipe_of, resume, train
from saccade.tasks.classification import evaluate
from saccade.tasks.other_data import other_data
from saccade.training import Interrupted


@pytest.mark.parametrize("kind", ["run", "empty folder", "file"])
def test_what_exists_is_never_overwritten(tmp_path, listops_run, kind):
    out = tmp_path / "run"
    if kind == "run":
        shutil.copytree(listops_run[0], out)
    elif kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=r"run already exists and is never overwritten; choose .* --resume"):
        train(RECIPE, out, quiet=True)
    assert contents(tmp_path) == before


def test_data_that_cannot_be_read_leaves_no_folder(tmp_path):
    recipe = replace(RECIPE, data=DataSettings(source=str(tmp_path / "none.csv")))
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        train(recipe, tmp_path / "run", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_at_the_start_leaves_no_folder(tmp_path, monkeypatch):
    real = Path.write_text

    def write_text(path, *arguments, **options):
        return real(Path("/dev/full") if path.name.startswith("data.json") else path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", write_text)
    with pytest.raises(OSError, match=r"could not write .*data\.json: No space left on device"):
        train(RECIPE, tmp_path / "run", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_other_rows_are_scored_with_the_labels_of_the_run(tmp_path, reviews_run):
    folder, data = reviews_run[0], recipe_of(reviews_run[0]).data
    rows = [("fine, really", "good"), ("dull 7", "bad"), ("dull 8", "bad"), ("dull 9", "bad"), ("fine", "bad")]
    new = replace(data, source=write_csv(tmp_path / "new.csv", rows))
    metrics = evaluate(folder, new)
    assert metrics["accuracy"] == 0.8
    assert metrics["majority_share"] in (0.8, 0.2)
    assert (metrics["examples"], metrics["split"], metrics["data"]) == (5, "all", new.source)
    only = replace(data, source=write_csv(tmp_path / "only.csv", rows[:1]))
    assert evaluate(folder, only)["accuracy"] == 1


def test_a_split_of_other_data_is_scored_with_the_labels_of_the_run(reviews_run, monkeypatch):
    """The classes of a source may come in another order, as where Python has other packages."""
    folder, _ = reviews_run
    own = classification.load_data(recipe_of(folder).data)
    test = Split(own.test.sequences, 1 - own.test.labels)
    monkeypatch.setattr(classification, "load_data", lambda _: replace(own, classes=("good", "bad"), test=test))
    assert evaluate(folder, DataSettings(source="listops"))["accuracy"] == 1


def test_unseen_labels_are_named_with_the_place_of_the_first(tmp_path, reviews_run):
    folder, data = reviews_run[0], recipe_of(reviews_run[0]).data
    rows = [("fine", "good"), ("so so", "mixed"), ("hm", "mixed"), ("what", "odd")]
    new = replace(data, source=write_csv(tmp_path / "new.csv", rows))
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        evaluate(folder, new)
    assert str(caught.value) == (
        f"{new.source}, line 3: labels must be among those the model was trained on (bad, good), got 'mixed, odd'"
    )


def test_data_of_another_vocabulary_or_with_other_classes_is_refused(reviews_run):
    folder, _ = reviews_run
    with pytest.raises(ValueError, match=r"data must be data of the vocabulary that the model reads \(ByteVoc"):
        evaluate(folder, LISTOPS)
    with pytest.raises(ValueError, match=r"stdlib: labels must be among .*\(bad, good\), got '.*asyncio"):
        evaluate(folder, DataSettings(source="stdlib"))


def test_symbols_the_model_does_not_read_are_refused_with_their_place(tmp_path, listops_run):
    new = DataSettings(source=write_csv(tmp_path / "new.csv", [("[MAX 2 3 ]", 3), ("[AVG 2 3 ]", 2)]))
    with pytest.raises(ValueError, match=r"new\.csv, line 3: symbol must be one of .*got '\[AVG'"):
        evaluate(listops_run[0], new)


def test_an_unknown_split_is_refused(listops_run):
    with pytest.raises(ValueError, match=r"split must be one of .*got 'tset' \(did you mean 'test'\?\)"):
        evaluate(listops_run[0], split="tset")


def test_a_folder_without_a_run_is_refused(tmp_path):
    for act in (evaluate, resume):
        with pytest.raises(FileNotFoundError, match=r"run must be a folder that saccade train has written"):
            act(tmp_path)


def test_a_run_whose_data_has_changed_is_not_resumed(tmp_path):
    recipe = reviews(tmp_path)
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "run", on_step=interrupt_at(2), quiet=True)
    with Path(recipe.data.source).open("a") as file:
        file.write("fine again,good\n")
    with pytest.raises(ValueError, match="data must be what the run began with, but the training examples have"):
        resume(tmp_path / "run", quiet=True)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"vocabulary": {"kind": "bites"}}'])
def test_a_damaged_record_of_the_data_is_refused(tmp_path, listops_run, content):
    shutil.copytree(listops_run[0], tmp_path / "run")
    (tmp_path / "run" / "data.json").write_text(content)
    with pytest.raises(ValueError, match=r"data\.json must be the record of a run's data"):
        evaluate(tmp_path / "run")


def test_a_whole_file_has_no_split(tmp_path, reviews_run):
    folder, data = reviews_run[0], recipe_of(reviews_run[0]).data
    new = replace(data, source=write_csv(tmp_path / "new.csv", [("fine", "good"), ("dull", "bad")]))
    with pytest.raises(ValueError, match="split must be left out for a file, which is scored whole, got 'test'"):
        evaluate(folder, new, "test")
    assert evaluate(folder, data, "train")["split"] == "train"


def test_other_data_keeps_what_the_new_source_reads(listops_run, reviews_run):
    listops, own = listops_run[0], recipe_of(reviews_run[0]).data
    assert other_data(listops) is None
    assert other_data(listops, "stdlib") == DataSettings(source="stdlib")
    assert other_data(listops, "listops") == LISTOPS
    assert other_data(listops, overrides=["data.seed=3"]) == replace(LISTOPS, seed=3)
    assert other_data(reviews_run[0], "stdlib", ["data.per_class=20"]) == DataSettings(length=9, per_class=20)
    assert other_data(reviews_run[0], "hub:x") == replace(own, source="hub:x")
    # What was given by hand is kept even where it is wrong: loading says so.
    assert other_data(listops, "stdlib", ["data.max_depth=3"]) == DataSettings(max_depth=3)


def test_parts_of_the_old_source_are_not_those_of_another(tmp_path):
    recipe = reviews(tmp_path)
    test = write_csv(tmp_path / "test.csv", [("fine", "good"), ("dull", "bad")])
    train(replace(recipe, data=replace(recipe.data, test=test)), tmp_path / "run", quiet=True)
    assert other_data(tmp_path / "run", "hub:x").test is None
    assert other_data(tmp_path / "run", overrides=["data.words=7"]).test == test


def test_the_own_file_is_known_however_it_is_spelled(reviews_run):
    """Otherwise it would be scored whole, with all that was trained on."""
    source = Path(recipe_of(reviews_run[0]).data.source)
    respelled = source.parent / ".." / source.parent.name / source.name
    assert other_data(reviews_run[0], str(respelled)) == other_data(reviews_run[0], str(source))


def test_a_record_of_another_run_is_refused(listops_run, reviews_run, tmp_path):
    shutil.copytree(listops_run[0], tmp_path / "run")
    shutil.copy(reviews_run[0] / "data.json", tmp_path / "run/data.json")
    with pytest.raises(ValueError, match=r"data\.json: record must be that of the model"):
        evaluate(tmp_path / "run")


@pytest.mark.parametrize("override", ["data.length=7", "data.seed=3"])
def test_the_own_data_is_not_split_anew(reviews_run, override):
    """Its new test would have been trained on."""
    with pytest.raises(ValueError, match=r"data\.\w+ must be left at \d: it decides which of the run's own examples"):
        other_data(reviews_run[0], overrides=[override])


@pytest.mark.parametrize("override", ["model.width=8", "training.steps=3", "task=classification", "width=8"])
def test_only_the_data_can_be_other(listops_run, override):
    with pytest.raises(ValueError, match=f"--set must be a change of the data, .*got '{override}'"):
        other_data(listops_run[0], overrides=[override])

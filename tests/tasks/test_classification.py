import csv
import json
import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from saccade.data import Batch, DataSettings, Split
from saccade.models import ClassifierSettings, SequenceClassifier
from saccade.tasks import classification, recipe_of, resume, train
from saccade.tasks.classification import Recipe, evaluate, prepare, score
from saccade.tasks.other_data import other_data
from saccade.training import Interrupted, TrainingSettings, half_width

MODEL = ClassifierSettings(mechanism="local(left=3)", width=12, heads=3, layers=1, hidden=17, dropout=0.2)
TRAINING = TrainingSettings(steps=11, batch_size=7, learning_rate=0.01, checkpoint_every=4, validate_every=5)
LISTOPS = DataSettings(
    source="listops", train_size=31, validation_size=11, test_size=13, min_length=4, max_length=19, max_depth=3
)
RECIPE = Recipe(data=LISTOPS, model=MODEL, training=TRAINING)


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return str(path)


def reviews(folder):
    rows = [(f"{word} {i}", label) for i in range(40) for word, label in (("fine", "good"), ("dull", "bad"))]
    return Recipe(
        data=DataSettings(source=write_csv(folder / "reviews.csv", rows), length=9),
        model=replace(MODEL, mechanism="full"),
        training=TrainingSettings(steps=40, batch_size=7, learning_rate=0.01),
    )


@pytest.fixture(scope="module")
def listops_run(tmp_path_factory):
    """A finished run that no test changes."""
    folder = tmp_path_factory.mktemp("listops") / "run"
    return folder, train(RECIPE, folder, quiet=True)


@pytest.fixture(scope="module")
def reviews_run(tmp_path_factory):
    """A finished run on a file that no test changes."""
    folder = tmp_path_factory.mktemp("reviews")
    return folder / "run", train(reviews(folder), folder / "run", quiet=True)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def interrupt_at(at):
    def on_step(step, loss, seconds):
        if step == at:
            os.kill(os.getpid(), signal.SIGINT)

    return on_step


def test_a_run_holds_all_that_is_needed_to_score_it_again(listops_run):
    folder, metrics = listops_run
    assert set(contents(folder)) >= {
        Path(name)
        for name in (
            "recipe.toml",
            "data.json",
            "log.jsonl",
            "model.safetensors",
            "config.json",
            "metrics.json",
            "checkpoints/step-00000011/checkpoint.json",
        )
    }
    assert recipe_of(folder) == RECIPE
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    again = evaluate(folder)
    assert again == {name: metrics[name] for name in again}
    assert again["examples"] == 13
    assert evaluate(folder, split="validation")["examples"] == 11
    assert 0 < metrics["step"] <= 11
    assert metrics["steps_per_second"] > 0


def test_the_model_and_the_examples_of_a_run_are_loaded(listops_run):
    folder, metrics = listops_run
    model, split = classification.load(folder, "validation")
    assert len(split) == 11
    model, split = classification.load(folder)
    found = score(model, split, pad_id=0)
    assert found.accuracy == metrics["accuracy"]
    with pytest.raises(ValueError, match="split must be one of test, train, validation, got 'tset'"):
        classification.load(folder, "tset")
    with pytest.raises(FileNotFoundError, match="run must be a folder that saccade train has written"):
        classification.load(folder.parent)


def test_scores_are_those_of_one_example_at_a_time():
    prepared = prepare(RECIPE)
    data, model = prepared.data, prepared.model.train()
    found = score(model, data.test, data.vocabulary.pad_id, batch_size=5)
    assert model.training
    model.eval()
    logits = torch.stack([model(tokens[None].long())[0] for tokens in data.test.sequences])
    right = (logits.argmax(1) == data.test.labels).double().mean().item()
    assert found.accuracy == pytest.approx(right)
    assert found.half_width == half_width(right, 13)
    assert found.loss == pytest.approx(cross_entropy(logits, data.test.labels).item(), rel=1e-5)
    assert found.examples == 13


def test_a_model_learns_what_a_word_says(reviews_run):
    _, metrics = reviews_run
    assert metrics["accuracy"] == 1
    assert metrics["majority_share"] == 0.5


def test_an_lstm_with_a_learned_query_is_trained_and_scored_again(tmp_path):
    model = replace(MODEL, network="lstm", mechanism="full", pooling="query")
    metrics = train(replace(reviews(tmp_path), model=model), tmp_path / "run", quiet=True)
    assert metrics["accuracy"] > 0.9
    assert evaluate(tmp_path / "run")["accuracy"] == metrics["accuracy"]
    assert recipe_of(tmp_path / "run").model == model


@pytest.mark.parametrize("stop", [3, 7])
def test_a_run_stopped_and_resumed_equals_one_that_was_not(tmp_path, listops_run, stop):
    folder, whole = listops_run
    with pytest.raises(Interrupted, match=f"after step {stop}"):
        train(RECIPE, tmp_path / "run", on_step=interrupt_at(stop), quiet=True)
    with pytest.raises(FileNotFoundError, match=r"no trained model in .*run yet; .*saccade train --resume"):
        evaluate(tmp_path / "run")
    resumed = resume(tmp_path / "run", quiet=True)
    assert {**resumed, "steps_per_second": 0} == {**whole, "steps_per_second": 0}
    assert equal(SequenceClassifier.from_pretrained(folder), SequenceClassifier.from_pretrained(tmp_path / "run"))


def test_auxiliary_losses_of_a_mechanism_are_added_to_the_loss_of_the_task():
    class Model(torch.nn.Module):
        def forward(self, tokens, key_mask, record):
            for value in (0.25, 0.5):
                record.add("losses", torch.tensor(value, requires_grad=True))
            return torch.zeros(2, 4, requires_grad=True)

    batch = Batch(torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool), torch.tensor([1, 3]))
    found = classification.loss(Model(), batch)
    assert found.count == 2
    torch.testing.assert_close(found.mean.item(), 0.75 + math.log(4))


def test_the_seed_of_training_decides_weights_and_order():
    one, same = prepare(RECIPE), prepare(RECIPE)
    other = prepare(replace(RECIPE, training=replace(TRAINING, seed=1)), data=one.data)
    assert other.data is one.data
    assert equal(one.model, same.model)
    assert not equal(one.model, other.model)
    losses = {name: [] for name in ("one", "same", "other")}
    for name, prepared in (("one", one), ("same", same), ("other", other)):
        prepared.fit(on_step=lambda step, loss, seconds, name=name: losses[name].append(loss), quiet=True)
    assert losses["one"] == losses["same"]
    assert len(losses["one"]) == 11
    assert losses["one"] != losses["other"]


def test_preparing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    prepare(RECIPE)
    assert torch.equal(torch.get_rng_state(), before)


LAYERS = {
    "t_dmca": ("local(left=3)", "compressed", "local(left=3)", "compressed(stride=2, groups=1)", "local(left=3)"),
    "shared": ("linformer(rank=3, max_length=19, sharing='layerwise')", "full")
    + ("linformer(rank=3, max_length=19, sharing='layerwise')",) * 2,
}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_a_mechanism_for_each_layer_is_trained_saved_and_resumed(tmp_path, layers):
    recipe = replace(RECIPE, model=replace(MODEL, mechanism=layers, layers=len(layers)))
    whole = train(recipe, tmp_path / "whole", quiet=True)
    assert recipe_of(tmp_path / "whole") == recipe
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "run", on_step=interrupt_at(6), quiet=True)
    assert {**resume(tmp_path / "run", quiet=True), "steps_per_second": 0} == {**whole, "steps_per_second": 0}
    models = [SequenceClassifier.from_pretrained(tmp_path / name) for name in ("whole", "run")]
    assert equal(*models)
    attention = [layer.attention.layer for layer in models[0].encoder.layers]
    if layers == LAYERS["shared"]:
        assert all(attention[i].matrices()[0] is attention[0].E for i in (2, 3))
    assert evaluate(tmp_path / "run")["loss"] == whole["loss"]


def test_several_mechanisms_train_on_data_that_is_loaded_once():
    data = prepare(RECIPE).data
    for mechanism in ("full", "big_bird", "linear"):
        prepared = prepare(replace(RECIPE, model=replace(MODEL, mechanism=mechanism)), data)
        trained = prepared.fit(quiet=True)
        assert len(trained.step_seconds) == 11
        assert trained.validation is not None


def test_bf16_trains(tmp_path):
    recipe = replace(reviews(tmp_path), training=replace(TRAINING, steps=3, validate_every=0, precision="bf16"))
    assert 0 <= train(recipe, tmp_path / "run", quiet=True)["loss"] < 2


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


def test_a_model_is_kept_whatever_becomes_of_its_scores(tmp_path, monkeypatch):
    def fails(work):
        raise MemoryError("too much")

    with monkeypatch.context() as patch:
        patch.setattr(classification.Prepared, "metrics", fails)
        with pytest.raises(MemoryError):
            train(RECIPE, tmp_path / "run", quiet=True)
    assert (tmp_path / "run/model.safetensors").is_file()
    assert resume(tmp_path / "run", quiet=True)["examples"] > 0


@pytest.mark.parametrize("override", ["data.length=7", "data.seed=3"])
def test_the_own_data_is_not_split_anew(reviews_run, override):
    """Its new test would have been trained on."""
    with pytest.raises(ValueError, match=r"data\.\w+ must be left at \d: it decides which of the run's own examples"):
        other_data(reviews_run[0], overrides=[override])


@pytest.mark.parametrize("override", ["model.width=8", "training.steps=3", "task=classification", "width=8"])
def test_only_the_data_can_be_other(listops_run, override):
    with pytest.raises(ValueError, match=f"--set must be a change of the data, .*got '{override}'"):
        other_data(listops_run[0], overrides=[override])

"""One label a sequence: trained, scored, stopped and resumed."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from labelling_cases import MODEL, RECIPE, TRAINING, contents, equal, interrupt_at, reviews
from torch.nn.functional import cross_entropy

from saccade.data import Batch
from saccade.models import SequenceClassifier
from saccade.tasks import classification, recipe_of, resume, train
from saccade.tasks.classification import evaluate, prepare, score
from saccade.training import Interrupted, half_width


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


def test_a_model_is_kept_whatever_becomes_of_its_scores(tmp_path, monkeypatch):
    def fails(work):
        raise MemoryError("too much")

    with monkeypatch.context() as patch:
        patch.setattr(classification.Prepared, "metrics", fails)
        with pytest.raises(MemoryError):
            train(RECIPE, tmp_path / "run", quiet=True)
    assert (tmp_path / "run/model.safetensors").is_file()
    assert resume(tmp_path / "run", quiet=True)["examples"] > 0

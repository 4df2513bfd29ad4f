import re
from dataclasses import replace
from pathlib import Path

import pytest

from saccade import config
from saccade.data import DataSettings
from saccade.data import load as load_data
from saccade.models import LanguageModel, Seq2Seq, SequenceClassifier, Tagger
from saccade.tasks import TASKS, Recipe, load_recipe, recipe_of

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_builds_its_model_and_survives_being_written(path, tmp_path):
    recipe = load_recipe(path)
    assert recipe.task in TASKS
    if recipe.task == "classification":
        SequenceClassifier(257, 7, recipe.model)
    elif recipe.task == "seq2seq":
        Seq2Seq(257, recipe.model)
    elif recipe.task == "tagging":
        Tagger(257, 31, 7, recipe.model)
    else:
        LanguageModel(257, recipe.model)
    (tmp_path / "recipe.toml").write_text(config.dump(recipe))
    assert recipe_of(tmp_path) == recipe
    assert path.read_text().count("#") > 5


def test_the_options_of_the_recipes_are_read_by_their_sources():
    for path in RECIPES:
        data = load_recipe(path).data
        if data.source == "listops":
            load_data(replace(data, train_size=3, validation_size=3, test_size=3))
    stdlib = load_recipe(RECIPES[0].parent / "stdlib.toml").data
    assert stdlib.source == "stdlib"
    load_data(stdlib)


def test_the_layers_of_t_dmca_alternate_and_can_be_set():
    path = next(path for path in RECIPES if path.stem == "t-dmca")
    local, compressed = "local(left=128)", "compressed(stride=3)"
    assert load_recipe(path).model.mechanism == (local, compressed, local, compressed, local)
    chosen = ["model.layers=2", 'model.mechanism=["full", "compressed(stride=4, null=False)"]']
    assert load_recipe(path, chosen).model.mechanism == ("full", "compressed(stride=4, null=False)")


def test_no_file_means_the_defaults():
    assert load_recipe(None) == Recipe()
    assert load_recipe(None, ["data.length=64"]) == Recipe(data=DataSettings(length=64))


def test_mistakes_are_refused_with_the_key_and_the_nearest_name(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('task = "clasification"\n')
    with pytest.raises(ValueError, match=r"run\.toml, line 1: task must be one of .*did you mean 'classification'"):
        load_recipe(path)
    for override, message in [
        ("model.widht=3", "key must be one of .*got 'model.widht' .*did you mean 'model.width'"),
        ("model.mechanism=big_brid", r"model\.mechanism must be one of .*did you mean 'big_bird'"),
        (
            'model.mechanism=["local"]',
            r"model\.mechanism must be one, or one for each of the 2 layers, got \['local'\]",
        ),
        ('model.mechanism=["full", "locl"]', r"model\.mechanism must be one of .*got 'locl' .*did you mean 'local'"),
        ('model.mechanism=["full", 3]', r"model\.mechanism must be text or a list, each item text, got \['full', 3\]"),
        ("training.precision=fp8", r"training\.precision must be one of bf16, fp32, got 'fp8'"),
        ("training.steps=0", r"training\.steps must be at least 1, got 0"),
        ("data.length=0", r"data\.length must be at least 1, got 0"),
        ("task=cooking", "task must be one of classification, .*got 'cooking'"),
    ]:
        with pytest.raises(ValueError, match=f"^--set {re.escape(override)}: {message}"):
            load_recipe(None, [override])

"""A table of learned positions that is too short for the data is refused before anything is trained, in every task."""

from dataclasses import replace

import pytest
from labelling_cases import RECIPE

from saccade.data.stream import StreamSettings
from saccade.data.tagged import TaggedSettings
from saccade.models import LanguageModelSettings, TaggerSettings
from saccade.models.networks import TransformerSettings
from saccade.tasks import classification, language_model, seq2seq, tagging
from saccade.tasks.windowed_text import WindowSettings

LEARNED = {"position": "learned", "width": 8, "heads": 2, "layers": 1, "hidden": 8}


def test_one_label_a_sequence():
    longest = classification.prepare(RECIPE).data.longest
    enough = replace(RECIPE, model=replace(RECIPE.model, position="learned", max_length=longest))
    classification.prepare(enough)
    short = replace(enough, model=replace(enough.model, max_length=longest - 1))
    with pytest.raises(ValueError, match=rf"model\.max_length must be at least {longest}, .* got {longest - 1}"):
        classification.prepare(short)
    classification.prepare(replace(short, model=replace(short.model, mechanism="full", network="lstm")))


def test_one_label_a_token(tmp_path):
    files = {name: tmp_path / f"{name}.conll" for name in ("train", "validation", "test")}
    for name, words in (("train", 4), ("validation", 7), ("test", 5)):
        files[name].write_text("a\tO\n" * words, encoding="utf-8")
    data = TaggedSettings(str(files["train"]), validation=str(files["validation"]), test=str(files["test"]))
    model = TaggerSettings(transformer=TransformerSettings(max_length=7, **LEARNED))
    tagging.prepare(tagging.Recipe(data, model=model))
    short = replace(model, transformer=replace(model.transformer, max_length=6))
    with pytest.raises(ValueError, match=r"model\.transformer\.max_length must be at least 7, .* got 6"):
        tagging.prepare(tagging.Recipe(data, model=short))
    tagging.prepare(tagging.Recipe(data, model=replace(short, network="lstm")))


def test_sequence_to_sequence(reversing_recipe):
    """Long pairs are left out of training, but scored; `<eos>` counts."""
    recipe = replace(reversing_recipe, data=replace(reversing_recipe.data, max_source=4, max_target=4))
    learned = replace(recipe.model, position="learned", max_length=5)
    seq2seq.prepare(replace(recipe, model=learned))
    with pytest.raises(ValueError, match=r"model\.max_length must be at least 5, .* got 4"):
        seq2seq.prepare(replace(recipe, model=replace(learned, max_length=4)))


def test_windows_of_text(tmp_path):
    (tmp_path / "text.txt").write_text("abc\n" * 30, encoding="utf-8")
    model = LanguageModelSettings(max_length=12, **LEARNED)
    recipe = language_model.Recipe(
        StreamSettings(str(tmp_path / "text.txt")), windows=WindowSettings(length=12), model=model
    )
    language_model.prepare(recipe)
    with pytest.raises(ValueError, match=r"model\.max_length must be at least 13, .* got 12"):
        language_model.prepare(replace(recipe, windows=WindowSettings(length=13)))

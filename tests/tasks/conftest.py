"""Finished runs that no test changes."""

import pytest
from labelling_cases import RECIPE, reviews
from reversing import MODEL, TRAINING, data_of, table, words

from saccade.data.parallel import ParallelSettings
from saccade.data.tokenizer_training import TokenizerSettings
from saccade.tasks import train
from saccade.tasks.seq2seq import Recipe
from saccade.training import TrainingSettings


@pytest.fixture(scope="session")
def reversing_pairs(tmp_path_factory):
    """Words and the same from behind."""
    return table(tmp_path_factory.mktemp("pairs") / "pairs.tsv", [(word, word[::-1]) for word in words(250)])


@pytest.fixture(scope="session")
def reversing_recipe(reversing_pairs):
    method, metrics = "greedy(max_length=9)", ("word_error", "bleu")
    return Recipe(
        data_of(reversing_pairs), model=MODEL, batch_tokens=64, method=method, metrics=metrics, training=TRAINING
    )


@pytest.fixture(scope="session")
def reversing_run(reversing_recipe, tmp_path_factory):
    """A finished run that no test changes."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, train(reversing_recipe, folder, quiet=True)


@pytest.fixture(scope="session")
def two_sides(tmp_path_factory):
    """A finished run of a model that writes words from behind, or in capitals; read from aligned files."""
    folder = tmp_path_factory.mktemp("sides")
    for side, change in (("en", str), ("back", lambda word: word[::-1]), ("up", str.upper)):
        (folder / f"words.{side}").write_text("".join(f"{change(word)}\n" for word in words(120)), encoding="utf-8")
    characters = TokenizerSettings("characters")
    data = ParallelSettings(
        f"{folder}/words.{{}}", "en", ("back", "up"), tokenizer=characters, max_source=20, max_target=20
    )
    method, longer = "greedy(max_length=9)", TrainingSettings(steps=60, learning_rate=0.01)
    recipe = Recipe(data, model=MODEL, batch_tokens=128, method=method, metrics=("word_error",), training=longer)
    return folder / "run", recipe, train(recipe, folder / "run", quiet=True)


@pytest.fixture(scope="session")
def listops_run(tmp_path_factory):
    """A finished run that no test changes."""
    folder = tmp_path_factory.mktemp("listops") / "run"
    return folder, train(RECIPE, folder, quiet=True)


@pytest.fixture(scope="session")
def reviews_run(tmp_path_factory):
    """A finished run on a file that no test changes."""
    folder = tmp_path_factory.mktemp("reviews")
    return folder / "run", train(reviews(folder), folder / "run", quiet=True)

import math
from dataclasses import replace

import pytest
import torch
from stopping import assert_goes_on

from saccade import config
from saccade.cli import run as command
from saccade.data.masking import masked
from saccade.data.stream import StreamSettings
from saccade.data.tokenizer_training import TokenizerSettings
from saccade.models import LanguageModelSettings
from saccade.tasks import load_recipe, train
from saccade.tasks.answers import numbered
from saccade.tasks.filling import filling
from saccade.tasks.masked_language_model import Recipe, evaluate, prepare, score
from saccade.tasks.windowed_text import WindowSettings, load
from saccade.training import TrainingSettings

MODEL = LanguageModelSettings("local(left=5)", width=12, heads=3, layers=1, hidden=17, dropout=0.1, causal=False)
TRAINING = TrainingSettings(steps=9, batch_size=5, learning_rate=0.01, checkpoint_every=4)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "cats.txt"
    path.write_text("one cat sat on the mat , and two dogs slept .\n" * 150, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def recipe(text):
    words = StreamSettings(str(text), tokenizer=TokenizerSettings("words"))
    return Recipe(words, windows=WindowSettings(length=19), model=MODEL, training=TRAINING)


@pytest.fixture(scope="module")
def learned(recipe, tmp_path_factory):
    """A run that has learned its text, and its scores; no test changes it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    model = replace(MODEL, width=24, heads=2, hidden=48, position="rotary", dropout=0.0)
    longer = TrainingSettings(steps=300, batch_size=16, learning_rate=0.02)
    return folder, train(replace(recipe, model=model, training=longer), folder, quiet=True)


def test_a_text_that_repeats_is_learned(learned):
    _, scores = learned
    assert scores["accuracy"] > 0.9
    assert scores["perplexity"] < 1.5


def test_a_score_is_that_of_each_window_alone(recipe):
    work = prepare(recipe)
    model, text, size = work.model.double().eval(), work.data.test, work.data.tokenizer.size
    found = score(model, text, recipe, size)
    generator, nats, right, count = torch.Generator().manual_seed(recipe.training.seed), 0.0, 0, 0
    tokens = text.tokens[1:].long()
    # Places are drawn for a batch of five windows at once.
    for first in range(0, len(tokens), 5 * 19):
        windows = tokens[first : first + 5 * 19].split(19)
        rows = torch.zeros(len(windows), 19, dtype=torch.long)
        for row, window in enumerate(windows):
            rows[row, : len(window)] = window
        inputs, chosen = masked(rows, rows > 0, recipe.share, size, generator)
        for row, window in enumerate(windows):
            scores = model(inputs[row : row + 1, : len(window)])[0].log_softmax(-1)
            for place in chosen[row].nonzero()[:, 0].tolist():
                nats -= scores[place, window[place]].item()
                right += int(scores[place].argmax() == window[place])
                count += 1
    assert found.tokens == count > 20
    assert found.nats_per_token == pytest.approx(nats / count, rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(nats / count), rel=1e-6)
    assert found.accuracy == right / count


def test_a_stopped_run_goes_on_as_if_it_had_not(recipe, tmp_path):
    whole = tmp_path / "whole", train(recipe, tmp_path / "whole", quiet=True)
    assert_goes_on(recipe, load, whole, tmp_path / "run")


def test_another_file_is_scored_whole(learned, text):
    folder, _ = learned
    found = evaluate(folder, str(text))
    assert (found["data"], found["split"]) == (str(text), "all")
    assert evaluate(folder, split="test") == evaluate(folder)
    with pytest.raises(ValueError, match="--set must be a change of the windows"):
        evaluate(folder, overrides=["share=0.5"])


def test_masks_in_lines_are_filled(learned):
    answer = filling(learned[0])
    texts = [
        "one cat <mask> on the mat , and two <mask> slept .",
        "nothing to fill",
        "",
        "one <mask> sat on the <mask>",
    ]
    whole = answer(list(numbered(texts, "x")))
    assert whole[0] == "one cat sat on the mat , and two dogs slept ."
    assert whole[1:3] == texts[1:3]
    assert whole[3].split()[:3] == ["one", "cat", "sat"]
    # Whatever else stands there stays as it is.
    assert answer(list(numbered(["Zzz  cat <mask> on"], "x")))[0].startswith("Zzz  cat ")
    assert [answer(list(numbered([text], "x")))[0] for text in texts] == whole


def test_a_vocabulary_of_another_run_is_refused(learned, recipe, text, tmp_path):
    """Also one of the same size."""
    other = tmp_path / "other.txt"
    other.write_text(text.read_text(encoding="utf-8").replace("cat", "cow"), encoding="utf-8")
    train(replace(recipe, data=replace(recipe.data, source=str(other))), tmp_path / "run", quiet=True)
    (tmp_path / "run/tokenizer.json").write_bytes((learned[0] / "tokenizer.json").read_bytes())
    with pytest.raises(ValueError, match=r"tokenizer\.json: vocabulary must be that of the model, with digest"):
        filling(tmp_path / "run")


def test_on_the_command_line(recipe, learned, tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text(config.dump(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.toml") == recipe
    assert command(["train", f"{tmp_path}/recipe.toml", "--out", f"{tmp_path}/run"]) == 0
    assert "accuracy: " in capsys.readouterr().out
    (tmp_path / "lines.txt").write_text("one cat sat on the <mask> , and two dogs slept .\n", encoding="utf-8")
    assert command(["predict", str(learned[0]), "--input", f"{tmp_path}/lines.txt"]) == 0
    assert capsys.readouterr().out == "one cat sat on the mat , and two dogs slept .\n"


def test_what_is_refused(recipe, text):
    with pytest.raises(ValueError, match=r"model\.causal must be false"):
        replace(recipe, model=LanguageModelSettings())
    with pytest.raises(ValueError, match="share must be above 0 and below 1, got 1"):
        replace(recipe, share=1.0)
    work = prepare(recipe)
    with pytest.raises(ValueError, match="text must be long enough for some tokens to be hidden"):
        score(work.model, work.data.test, replace(recipe, share=1e-9), work.data.tokenizer.size)

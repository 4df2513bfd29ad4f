import json
import math
import re
from dataclasses import replace

import pytest
import torch
from stopping import assert_goes_on

from saccade import config
from saccade.cli import run as command
from saccade.data.stream import StreamSettings, load_streams
from saccade.data.tokenizer_training import TokenizerSettings
from saccade.models import LanguageModelSettings
from saccade.tasks import language_model, load_recipe, recipe_of, resume, train
from saccade.tasks.language_model import Recipe, evaluate, prepare, score
from saccade.tasks.windowed_text import WindowSettings, load
from saccade.training import TrainingSettings

LINE = "the cat sat on the mat, and the dog sat on the cat.\n"
MODEL = LanguageModelSettings(mechanism="local(left=5)", width=12, heads=3, layers=1, hidden=17, dropout=0.1)
TRAINING = TrainingSettings(steps=9, batch_size=5, learning_rate=0.01, checkpoint_every=4, validate_every=4)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "cats.txt"
    path.write_text("".join(f"{i} {LINE}" for i in range(60)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def recipe(text):
    return Recipe(StreamSettings(str(text)), windows=WindowSettings(length=19), model=MODEL, training=TRAINING)


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    """A finished run that no test changes."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, train(recipe, folder, quiet=True)


def naive_nats(model, tokens, length, stride):
    """Each token by a call of its own, over what its window holds: the first window, or one of those behind it."""
    total = 0.0
    for place in range(1, len(tokens)):
        behind = max(0, math.ceil((place - min(length, len(tokens) - 1)) / stride))
        context = tokens[behind * stride : place].long()
        total -= model(context[None])[0, -1].log_softmax(-1)[tokens[place]].item()
    return total


@pytest.mark.parametrize(("length", "stride"), [(19, 7), (19, 19), (8, 1), (1000, None)])
def test_a_score_is_that_of_every_token_alone(recipe, length, stride):
    work = prepare(recipe)
    model, text = work.model.double().eval(), work.data.validation
    windows = WindowSettings(length=length, stride=stride)
    found = score(model, text, windows, batch_size=3)
    with torch.inference_mode():
        total = naive_nats(model, text.tokens, length, windows.step)
    count = len(text.tokens) - 1
    # The logits go through fp32.
    assert found.tokens == count
    assert found.nats_per_token == pytest.approx(total / count, rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(total / count), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(total / math.log(2) / text.bytes, rel=1e-6)
    assert found.nats_per_character == pytest.approx(total / text.characters, rel=1e-6)


def test_bits_per_byte_do_not_ask_what_a_token_is(text):
    """A model that knows nothing pays log2 of its vocabulary for each token, however many bytes that is."""
    settings = StreamSettings(str(text), tokenizer=TokenizerSettings("bpe", size=300))
    work = prepare(Recipe(settings, model=MODEL))
    with torch.no_grad():
        for weight in work.model.parameters():
            weight.zero_()
    found = score(work.model, work.data.test, WindowSettings(length=16))
    tokens = len(work.data.test.tokens) - 1
    assert found.bits_per_byte == pytest.approx(math.log2(work.data.tokenizer.size) * tokens / work.data.test.bytes)
    assert found.perplexity == pytest.approx(work.data.tokenizer.size, rel=1e-4)


def test_training_learns_the_text(recipe, tmp_path):
    longer = replace(recipe, training=TrainingSettings(steps=60, batch_size=8, learning_rate=0.02))
    work = prepare(longer)
    before = score(work.model, work.data.test, recipe.windows).nats_per_token
    work.fit(quiet=True)
    assert score(work.model, work.data.test, recipe.windows).nats_per_token < 0.6 * before


def test_a_run_can_be_scored_again(finished, recipe):
    folder, metrics = finished
    assert recipe_of(folder) == recipe
    assert metrics == json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    again = evaluate(folder)
    assert again == {name: value for name, value in metrics.items() if name not in ("step", "steps_per_second")}
    assert (again["split"], again["data"]) == ("test", recipe.data.source)
    assert evaluate(folder, split="validation")["tokens"] == len(load_streams(recipe.data).validation.tokens) - 1


def test_another_text_is_scored_whole(finished, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(LINE * 3, encoding="utf-8")
    found = evaluate(finished[0], str(other))
    assert (found["split"], found["tokens"]) == ("all", 3 * len(LINE))
    closer = evaluate(finished[0], str(other), ["windows.stride=1"])
    assert closer["tokens"] == found["tokens"]
    assert closer["nats_per_token"] != found["nats_per_token"]


def test_a_stopped_run_goes_on_as_if_it_had_not(finished, recipe, tmp_path):
    assert_goes_on(recipe, load, finished, tmp_path / "run")


def test_a_run_of_a_text_that_has_changed_is_not_resumed(recipe, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(LINE * 30, encoding="utf-8")
    train(replace(recipe, data=StreamSettings(str(path))), tmp_path / "run", quiet=True)
    path.write_text(LINE.upper() * 30, encoding="utf-8")
    with pytest.raises(ValueError, match="data must be what the run began with"):
        resume(tmp_path / "run", quiet=True)


def test_the_command_line_trains_and_scores_it(recipe, tmp_path, capsys):
    path, folder = tmp_path / "recipe.toml", tmp_path / "run"
    path.write_text(config.dump(recipe), encoding="utf-8")
    assert command(["train", str(path), "--out", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^bits per byte: [\d.]+$", printed, re.MULTILINE)
    assert re.search(r"^unknown share: 0\.0%$", printed, re.MULTILINE)
    assert command(["evaluate", str(folder), "--set", "windows.stride=3"]) == 0
    assert "perplexity: " in capsys.readouterr().out
    for others in (["show", str(folder)], ["compare", "--recipe", str(path)]):
        assert command(others) != 0
        assert "language_model" in capsys.readouterr().err


def test_auxiliary_losses_are_learned_from(text):
    recipe = Recipe(StreamSettings(str(text)), model=replace(MODEL, mechanism="routing(clusters=2)"))
    work = prepare(recipe)
    batch = next(work.batches(0))
    plain = replace(MODEL, mechanism="routing(clusters=2)")
    assert plain == work.recipe.model
    found = language_model.loss(work.model.eval(), batch)
    assert found.count == batch.scored.sum()
    logits = work.model(batch.inputs)
    assert found.sum > torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="sum")


def test_a_recipe_is_read_with_its_task(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        'task = "language_model"\n[data]\nsource = "a.txt"\n[data.tokenizer]\nkind = "words"\n[windows]\nlength = 7\n',
        encoding="utf-8",
    )
    found = load_recipe(path)
    assert (found.windows.length, found.windows.step, found.data.tokenizer.kind) == (7, 3, "words")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"length": 8, "stride": 9}, "stride must be from 1 to length = 8, got 9"),
        ({"order": "sorted"}, "order must be one of consecutive, random, got 'sorted'"),
    ],
)
def test_windows_that_cannot_be_are_refused(options, message, unchecked):
    with pytest.raises(ValueError, match=message):
        WindowSettings(**options)


def test_what_cannot_be_scored_is_refused(finished, recipe, tmp_path):
    with pytest.raises(ValueError, match=r"model\.causal must be true"):
        Recipe(recipe.data, model=replace(MODEL, causal=False))
    with pytest.raises(ValueError, match="split must be left out for a file"):
        evaluate(finished[0], "other.txt", split="test")
    with pytest.raises(ValueError, match="split must be one of test, train, validation, got 'dev'"):
        evaluate(finished[0], split="dev")
    with pytest.raises(ValueError, match="--set must be a change of the windows"):
        evaluate(finished[0], overrides=["model.width=3"])
    with pytest.raises(FileNotFoundError, match="must be a folder that saccade train has written"):
        load(tmp_path)

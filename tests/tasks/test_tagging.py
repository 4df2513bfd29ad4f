import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stopping import assert_goes_on

from saccade import config
from saccade.cli import run as command
from saccade.data.tagged import TaggedSettings, load_tagged
from saccade.data.tokenizer import UNK
from saccade.models import TaggerSettings, WordSettings
from saccade.models.networks import NETWORKS, LSTMSettings, TransformerSettings, WindowNetworkSettings
from saccade.tasks import load_recipe, recipe_of, resume, tag_lines, train
from saccade.tasks.answers import answered, numbered
from saccade.tasks.tagged_record import TaggedRecord, commonest_tags
from saccade.tasks.tagging import Recipe, evaluate, load, loss, predict, prepare
from saccade.training import TrainingSettings

MODEL = TaggerSettings(
    "transformer",
    0.1,
    WordSettings(width=10, letter_width=6, features=8),
    TransformerSettings(mechanism="local(left=2)", width=12, heads=3, layers=1, hidden=17),
    WindowNetworkSettings(1, 15),
    LSTMSettings(7),
)
OTHER_TAGS = ["O", "BEFORE", "O", "O", "BEFORE"]
TRAINING = TrainingSettings(steps=9, learning_rate=0.01, checkpoint_every=4, validate_every=4, ema=0.5)


def sentence(generator):
    """Words of a letter, some with a capital; the tag says whether the next one has one."""
    length = int(torch.randint(2, 9, (), generator=generator))
    capitals = torch.randint(2, (length,), generator=generator).tolist()
    letters = torch.randint(26, (length,), generator=generator).tolist()
    words = [chr(ord("A" if capital else "a") + letter) for capital, letter in zip(capitals, letters, strict=True)]
    return "".join(
        f"{word}\t{'BEFORE' if after else 'O'}\n" for word, after in zip(words, [*capitals[1:], 0], strict=True)
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    generator = torch.Generator().manual_seed(3)
    path = tmp_path_factory.mktemp("sentences") / "letters.conll"
    path.write_text("\n".join(sentence(generator) for _ in range(300)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def recipe(source):
    return Recipe(TaggedSettings(str(source)), batch_tokens=64, model=MODEL, training=TRAINING)


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    """A finished run that no test changes."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, train(recipe, folder, quiet=True)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_learns_what_the_next_word_tells(recipe, network):
    training = TrainingSettings(steps=120, learning_rate=0.015, warmup=0.1)
    near = TransformerSettings("local(left=1)", 24, 3, 1, 48, "rotary", dropout=0.0)
    model = replace(MODEL, network=network, dropout=0.0, transformer=near)
    chosen = replace(recipe, model=model, training=training, batch_tokens=300)
    work = prepare(chosen)
    work.fit(quiet=True)
    scores = work.metrics()
    assert scores["accuracy"] > 0.93 > scores["majority_accuracy"] + 0.25


def test_the_best_tags_are_those_of_every_sentence_alone(recipe):
    work = prepare(recipe)
    model, split = work.model.double().train(), work.data.test
    found = predict(model, split, batch_tokens=30)
    assert model.training
    model.eval()
    for row, tags in enumerate(found.split(split.lengths.tolist())):
        alone = split.batch(torch.tensor([row]))
        assert torch.equal(model(alone.words, alone.characters, alone.key_mask)[0].argmax(-1), tags)
    assert torch.equal(predict(model, split, batch_tokens=1), found)


def test_a_loss_is_the_surprise_at_real_words(recipe):
    work = prepare(recipe)
    batch = work.data.train.batch(torch.arange(5))
    found = loss(work.model.eval(), batch)
    logits = work.model(batch.words, batch.characters, batch.key_mask).log_softmax(-1)
    total = -sum(logits[at][batch.tags[at]].item() for at in map(tuple, batch.key_mask.nonzero().tolist()))
    assert found.count == batch.key_mask.sum()
    assert found.sum.item() == pytest.approx(total, rel=1e-5)


def test_rare_words_are_hidden_in_training_alone(recipe):
    work = prepare(replace(recipe, hide_rare=1e9))
    batch = work.data.train.batch(torch.arange(5))
    hidden = loss(work.model.eval(), batch, torch.full_like(batch.words, UNK))
    torch.testing.assert_close(work.loss(work.model, batch).sum, hidden.sum, rtol=1e-4, atol=1e-4)
    plain = prepare(replace(recipe, hide_rare=0.0))
    torch.testing.assert_close(plain.loss(plain.model.eval(), batch).sum, loss(plain.model, batch).sum)


def test_auxiliary_losses_are_learned_from(recipe):
    routing = replace(MODEL.transformer, mechanism="routing(clusters=2)")
    work = prepare(replace(recipe, model=replace(MODEL, transformer=routing)))
    batch = work.data.train.batch(torch.arange(5))
    found = loss(work.model.eval(), batch)
    logits = work.model(batch.words, batch.characters, batch.key_mask)[batch.key_mask]
    assert found.sum > torch.nn.functional.cross_entropy(logits, batch.tags[batch.key_mask], reduction="sum")


def test_a_run_can_be_scored_again(finished, recipe):
    folder, metrics = finished
    assert recipe_of(folder) == recipe
    assert metrics == json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    again = evaluate(folder)
    assert again == {name: value for name, value in metrics.items() if name not in ("step", "steps_per_second")}
    assert (again["split"], again["data"]) == ("test", recipe.data.source)
    data = load_tagged(recipe.data)
    assert evaluate(folder, split="validation")["words"] == len(data.validation.words.values)
    assert evaluate(folder, overrides=["batch_tokens=7"]) == again


def test_scores_are_counted_by_hand(finished, recipe, tmp_path):
    """On another file, some of whose words training has not."""
    other = tmp_path / "other.conll"
    other.write_text("a\tO\n1\tBEFORE\nB\tO\n\n22\tO\nc\tBEFORE\n", encoding="utf-8")
    folder, _ = finished
    tags = list(answered(numbered(["a 1 B", "22 c"], "lines"), tag_lines.answers(folder)))
    right = [
        one == other for one, other in zip(" ".join(tags).split(), ["O", "BEFORE", "O", "O", "BEFORE"], strict=True)
    ]
    found = evaluate(folder, str(other))
    assert found["split"] == "all"
    assert (found["words"], found["sentences"], found["unknown_words"]) == (5, 2, 2)
    assert found["accuracy"] == pytest.approx(sum(right) / 5)
    assert found["unknown_accuracy"] == pytest.approx((right[1] + right[3]) / 2)
    # Each word is guessed as O, as its capital says nothing of what comes next, and the commonest tag is O.
    assert found["majority_accuracy"] == pytest.approx(guessed(recipe, ["a", None, "b", None, "c"]) / 5)


def guessed(recipe, words):
    """How many of the tags O BEFORE O O BEFORE are the commonest of these words in training."""
    data = load_tagged(recipe.data)
    tags = {word: [0, 0] for word in words}
    for row in range(len(data.train)):
        for word, tag in zip(data.train.words[row].tolist(), data.train.tags[row].tolist(), strict=True):
            for known in {data.vocabulary.words.token(word), None} & set(tags):
                tags[known][tag] += 1
    names = [data.vocabulary.tags[0 if tags[word][0] >= tags[word][1] else 1] for word in words]
    return sum(one == other for one, other in zip(names, OTHER_TAGS, strict=True))


def test_the_commonest_tag_of_each_word(tmp_path):
    (tmp_path / "a.conll").write_text("a\tX\na\tY\na\tY\nb\tZ\n\nb\tX\nb\tX\nc\tX\n")
    path = str(tmp_path / "a.conll")
    data = load_tagged(TaggedSettings(path, path, path, min_count=2))
    found = commonest_tags(data.train, data.vocabulary.words.size, 3)
    named = {data.vocabulary.words.token(i): data.vocabulary.tags[tag] for i, tag in enumerate(found.tolist())}
    assert (named["a"], named["b"], named["<unk>"], named["<pad>"]) == ("Y", "X", "X", "X")


def test_entities_are_scored_and_chosen_by(source, recipe, tmp_path):
    text = source.read_text(encoding="utf-8").replace("BEFORE", "B-x")
    (tmp_path / "entities.conll").write_text(text, encoding="utf-8")
    entities = replace(recipe, data=TaggedSettings(str(tmp_path / "entities.conll")))
    scores = train(entities, tmp_path / "run", quiet=True)
    assert 0 <= scores["precision"] <= 1
    assert scores["entities"] == int((load_tagged(entities.data).test.tags.values == 0).sum())
    assert scores["entity_mode"] == "seqeval, default mode (as conlleval)"
    work = prepare(entities)
    # A model that says O everywhere finds none.
    with torch.no_grad():
        work.model.output.weight.zero_()
        work.model.output.bias.copy_(torch.tensor([0.0, 1.0]))
    assert work.validate(work.model) == 0
    with torch.no_grad():
        work.model.output.bias.copy_(torch.tensor([1.0, 0.0]))
    share = (work.data.validation.tags.values == 0).double().mean().item()
    assert work.validate(work.model) == pytest.approx(2 * share / (1 + share))


def test_a_stopped_run_goes_on_as_if_it_had_not(finished, recipe, tmp_path):
    assert_goes_on(recipe, load, finished, tmp_path / "run")


def test_a_run_of_sentences_that_have_changed_is_not_resumed(recipe, source, tmp_path):
    path = tmp_path / "letters.conll"
    path.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    train(replace(recipe, data=TaggedSettings(str(path))), tmp_path / "run", quiet=True)
    path.write_text(source.read_text(encoding="utf-8").replace("a\tO", "a\tBEFORE"), encoding="utf-8")
    with pytest.raises(ValueError, match="data must be what the run began with"):
        resume(tmp_path / "run", quiet=True)


def test_lines_are_answered_one_each_in_order(finished):
    lines = ["a B", "", "  c  D e\tF ", "zebra", " "]
    tags = list(answered(numbered(lines, "lines"), tag_lines.answers(finished[0])))
    assert [len(line.split()) for line in tags] == [2, 0, 4, 1, 0]
    assert set(" ".join(tags).split()) <= {"O", "BEFORE"}
    answer = tag_lines.answers(finished[0])
    assert [next(iter(answered(numbered([line], "line"), answer))) for line in lines] == tags
    assert list(answered(numbered(["", " "], "lines"), answer)) == ["", ""]
    assert list(answered(numbered(lines, "lines"), answer, chunk=2)) == tags


def test_a_line_that_is_too_long_for_learned_positions_is_named(recipe, tmp_path):
    learned = replace(MODEL.transformer, position="learned", max_length=10)
    train(replace(recipe, model=replace(MODEL, transformer=learned)), tmp_path / "run", quiet=True)
    answer = tag_lines.answers(tmp_path / "run")
    with pytest.raises(ValueError, match=r"lines, line 2: line must be of at most 10 tokens, .*, got 11"):
        list(answered(numbered(["a b", "a " * 11], "lines"), answer))


def test_the_command_line_trains_and_scores_it(recipe, source, tmp_path, capsys):
    path, folder = tmp_path / "recipe.toml", tmp_path / "run"
    path.write_text(config.dump(recipe), encoding="utf-8")
    options = ["--set", "model.network=window", "--set", "model.window.reach=2"]
    assert command(["train", str(path), "--out", str(folder), *options]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^accuracy: [\d.]+% ± [\d.]+%$", printed, re.MULTILINE)
    assert re.search(r"^majority accuracy: [\d.]+%$", printed, re.MULTILINE)
    assert recipe_of(folder).model.window.reach == 2
    assert command(["evaluate", str(folder), "--data", str(source)]) == 0
    assert "split: all" in capsys.readouterr().out
    (tmp_path / "lines.txt").write_text("a B c\n\nd E\n", encoding="utf-8")
    assert command(["predict", str(folder), "--input", str(tmp_path / "lines.txt")]) == 0
    assert re.fullmatch(r"(O|BEFORE)( (O|BEFORE)){2}\n\n(O|BEFORE) (O|BEFORE)\n", capsys.readouterr().out)
    bad = tmp_path / "bad.conll"
    bad.write_text("a\tO\n\nb\tNEXT\n", encoding="utf-8")
    assert command(["evaluate", str(folder), "--data", str(bad)]) == 2
    assert "bad.conll, line 3, word 1: tag must be one of BEFORE, O, got 'NEXT'" in capsys.readouterr().err
    assert command(["train", "--resume", str(folder)]) == 0


def test_a_recipe_is_read_with_its_task(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('task = "tagging"\n[data]\nsource = "a.conll"\n[model]\nnetwork = "lstm"\n', encoding="utf-8")
    found = load_recipe(path, ["model.lstm.hidden=5"])
    assert (found.model.network, found.model.chosen.hidden, found.data.tag) == ("lstm", 5, "upos")
    with pytest.raises(ValueError, match=r"model\.network must be one of .*, got 'gru'"):
        load_recipe(path, ["model.network=gru"])
    with pytest.raises(ValueError, match=r"hide_rare must be at least 0 and finite, got -1\.0"):
        load_recipe(path, ["hide_rare=-1"])
    with pytest.raises(ValueError, match=r"batch_tokens must be a whole number, at least 1, got 0"):
        load_recipe(path, ["batch_tokens=0"])


def test_the_vocabulary_of_another_run_is_refused(finished, recipe, source, tmp_path):
    text = source.read_text(encoding="utf-8").replace("a\tO", "ä\tO")
    (tmp_path / "other.conll").write_text(text, encoding="utf-8")
    other, mixed = tmp_path / "other", tmp_path / "mixed"
    train(replace(recipe, data=TaggedSettings(str(tmp_path / "other.conll"))), other, quiet=True)
    mixed.mkdir()
    for path in finished[0].iterdir():
        if path.is_file():
            (mixed / path.name).write_bytes(path.read_bytes())
    load(mixed)
    for name in ("words.json", "characters.json"):
        (mixed / name).write_bytes((other / name).read_bytes())
        with pytest.raises(ValueError, match=r"vocabulary must be that of this run, with digest"):
            load(mixed)
        (mixed / name).write_bytes((finished[0] / name).read_bytes())
    (mixed / "tags.json").write_text('{"letters": 24, "tags": ["O", "BEFORE"]}')
    with pytest.raises(ValueError, match=r"vocabulary must be that of this run"):
        evaluate(mixed)
    for path in ("words.json", "characters.json", "tags.json", "data.json"):
        (mixed / path).write_bytes((other / path).read_bytes())
    with pytest.raises(ValueError, match=r"vocabulary must be of the sizes .* of the model"):
        evaluate(mixed)


def test_what_cannot_be_scored_is_refused(finished, tmp_path):
    with pytest.raises(ValueError, match="split must be left out for a file"):
        evaluate(finished[0], "other.conll", split="test")
    with pytest.raises(ValueError, match="split must be one of test, train, validation, got 'dev'"):
        evaluate(finished[0], split="dev")
    with pytest.raises(ValueError, match=r"--set must be batch_tokens=.*, got 'model.dropout=0'"):
        evaluate(finished[0], overrides=["model.dropout=0"])
    (tmp_path / "empty.conll").write_text("\n\n")
    with pytest.raises(ValueError, match=r"empty\.conll must be a file with sentences in it"):
        evaluate(finished[0], str(tmp_path / "empty.conll"))
    with pytest.raises(FileNotFoundError, match="must be a folder that saccade train has written"):
        load(tmp_path)
    state = json.loads((finished[0] / "data.json").read_text())
    for path in finished[0].iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    del state["commonest"]
    (tmp_path / "data.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match=r"data\.json must be the record of a run's data: KeyError\('commonest'\)"):
        load(tmp_path)


DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="the data sets are not next to the checkout")
def test_entities_of_wnut17_are_learned_from(tmp_path):
    files = {part: str(DATA / "wnut17-ner" / f"{name}.conll") for part, name in
             (("source", "validation"), ("validation", "validation"), ("test", "test"))}  # fmt: skip
    training = TrainingSettings(steps=12, learning_rate=0.01)
    scores = train(Recipe(TaggedSettings(**files), model=MODEL, training=training), tmp_path / "run", quiet=True)
    assert scores["sentences"] == 1287
    assert scores["entities"] == 1079
    assert math.isfinite(scores["f1"])
    assert scores["accuracy"] > 0.85
    assert TaggedRecord.read(tmp_path / "run").vocabulary.tags[-1] == "O"

"""Sequence to sequence: trained to write words from behind, scored, stopped, resumed, and set to work on lines."""

import json
import math
import random
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from saccade import config, training
from saccade.claims import Claims
from saccade.cli import run as command
from saccade.data.parallel import ParallelSettings, load_parallel
from saccade.data.tokenizer_training import TokenizerSettings
from saccade.generation import Recomputed
from saccade.models import Seq2SeqSettings
from saccade.nn import cross_entropy
from saccade.tasks import load_recipe, pair_decoding, recipe_of, resume, train
from saccade.tasks.answers import GenerateOptions, answered, numbered, to_method
from saccade.tasks.pair_scores import surprise
from saccade.tasks.rewriting import longest_source, rewriting
from saccade.tasks.seq2seq import Recipe, evaluate, load, loss, prepare
from saccade.tasks.text_metrics import chrf
from saccade.training import TrainingSettings

MODEL = Seq2SeqSettings(width=16, heads=2, layers=1, decoder_layers=1, hidden=32, dropout=0.1)
TRAINING = TrainingSettings(steps=9, learning_rate=0.01, checkpoint_every=4, validate_every=4)
TIMES = ("seconds", "steps_per_second")


def words(count):
    """Different words of two to four letters."""
    draw = random.Random(0)
    found = dict.fromkeys("".join(draw.choices("abcd", k=draw.randint(2, 4))) for _ in range(4 * count))
    return list(found)[:count]


def table(path, rows, header="word\treversed"):
    path.write_text("".join(f"{line}\n" for line in (header, *("\t".join(row) for row in rows))), encoding="utf-8")
    return path


def data_of(path, **options):
    limits = {"max_source": 20, "max_target": 20}
    characters = TokenizerSettings("characters")
    return ParallelSettings(str(path), "word", ("reversed",), tokenizer=characters, **(limits | options))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Words and the same from behind."""
    return table(tmp_path_factory.mktemp("pairs") / "pairs.tsv", [(word, word[::-1]) for word in words(250)])


@pytest.fixture(scope="module")
def recipe(pairs):
    method, metrics = "greedy(max_length=9)", ("word_error", "bleu")
    return Recipe(data_of(pairs), model=MODEL, batch_tokens=64, method=method, metrics=metrics, training=TRAINING)


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    """A finished run that no test changes."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, train(recipe, folder, quiet=True)


@pytest.fixture(scope="module")
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


def timeless(metrics):
    return {name: value for name, value in metrics.items() if not name.startswith(TIMES)}


# Training


def test_training_learns_to_reverse(recipe):
    longer = TrainingSettings(steps=300, learning_rate=0.005)
    model = replace(MODEL, width=32, dropout=0.0)
    work = prepare(replace(recipe, batch_tokens=256, smoothing=0.0, training=longer, model=model))
    before = work.metrics()
    work.fit(quiet=True)
    after = work.metrics()
    assert before["word_error"] > 0.9
    assert after["word_error"] < 0.4
    assert after["perplexity"] < 1.3 < before["perplexity"]


def test_a_stopped_run_goes_on_as_if_it_had_not(finished, recipe, tmp_path):
    class StoppedError(Exception):
        pass

    def stop(step, loss, seconds):
        if step == 6:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(recipe, tmp_path / "run", on_step=stop, quiet=True)
    metrics = resume(tmp_path / "run", quiet=True)
    assert timeless(metrics) == timeless(finished[1])
    for one, other in zip(load(tmp_path / "run")[0].parameters(), load(finished[0])[0].parameters(), strict=True):
        assert torch.equal(one, other)


def test_batches_go_on_from_any_number_and_hold_so_many_tokens(recipe):
    work = prepare(recipe)
    first = work.batches(0)
    batches = [next(first) for _ in range(60)]  # more than an epoch
    assert {row for batch in batches for row in batch.rows.tolist()} == set(range(len(work.data.train)))
    for batch in batches:
        assert len(batch) * max(batch.source.shape[1], batch.target.shape[1]) <= 64
    for start in (1, 37, 59):
        assert torch.equal(next(work.batches(start)).rows, batches[start].rows)


def test_two_accumulated_batches_are_one_of_both(recipe):
    """Whatever their sizes are: each token counts once."""

    def trained(accumulate):
        settings = TrainingSettings(steps=3, accumulate=accumulate, learning_rate=0.01)
        work = prepare(replace(recipe, model=replace(MODEL, dropout=0.0), training=settings))
        work = replace(work, model=work.model.double())
        merged = 2 // accumulate

        def batches(start):
            stream = work.batches(start * merged)
            while True:
                yield work.data.train.batch(torch.cat([next(stream).rows for _ in range(merged)]))

        training.train(work.model, work.loss, batches, settings, quiet=True)
        return work.model

    for one, other in zip(trained(2).parameters(), trained(1).parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_the_loss_is_smoothed_and_counts_real_tokens(recipe):
    work = prepare(recipe)
    model = work.model.double().eval()
    batch = work.data.train.batch(torch.arange(7))
    found = loss(model, batch, smoothing=0.2)
    log_probs = model(batch.source, batch.inputs, batch.source_mask, batch.target_mask).log_softmax(-1)
    by_hand, count = 0.0, 0
    for row, place in batch.target_mask.nonzero().tolist():
        here = log_probs[row, place]
        by_hand, count = by_hand - 0.8 * here[batch.target[row, place]] - 0.2 * here.mean(), count + 1
    torch.testing.assert_close(found.sum, by_hand)
    assert found.count == count == int(work.data.train.targets.lengths[:7].sum())
    assert work.loss(model, batch).sum == loss(model, batch, recipe.smoothing).sum


def test_auxiliary_losses_are_learned_from(recipe):
    model = replace(MODEL, mechanism="routing(clusters=2)")
    work = prepare(replace(recipe, model=model))
    batch = work.data.train.batch(torch.arange(7))
    logits = work.model.eval()(batch.source, batch.inputs, batch.source_mask, batch.target_mask)
    assert loss(work.model, batch).sum > cross_entropy(logits, batch.target, batch.target_mask).sum


# Scores


def test_a_score_is_that_of_every_token_alone(recipe):
    work = prepare(recipe)
    model, split = work.model.double().eval(), work.data.validation
    total = 0.0
    with torch.inference_mode():
        for row in range(len(split)):
            written = torch.tensor([1])
            for token in split.targets[row].long():
                logits = model(split.sources[row].long()[None], written[None])
                total -= logits[0, -1].log_softmax(-1)[token].item()
                written = torch.cat([written, token[None]])
    for batch_tokens in (2, 50, 4000):  # even where one text is more than a batch
        found = surprise(model, split, batch_tokens)
        # The logits go through fp32.
        assert found.nats == pytest.approx(total, rel=1e-6)
        assert found.tokens == len(split.targets.values)
    assert work.validate(model) == pytest.approx(-total / found.tokens, rel=1e-6)


def test_a_run_can_be_scored_again(finished, recipe):
    folder, metrics = finished
    assert recipe_of(folder) == recipe
    assert metrics == json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    again = evaluate(folder)
    assert timeless(again) == {name: value for name, value in timeless(metrics).items() if name != "step"}
    assert (again["split"], again["data"]) == ("test", recipe.data.source)
    assert again["perplexity"] == pytest.approx(math.exp(again["nats_per_token"]))
    data = load_parallel(recipe.data)
    for split in ("train", "validation"):
        assert evaluate(folder, overrides=["metrics=[]"], split=split)["examples"] == len(data.splits[split])


def test_overrides_change_how_it_is_scored(finished):
    found = evaluate(
        finished[0], overrides=["method=beam(width=2, max_length=4)", 'metrics=["per"]', "batch_tokens=30"]
    )
    assert found["method"] == "beam(width=2, max_length=4)"
    assert "per" in found
    assert "bleu" not in found
    assert found["near_ties"] >= 0 < found["seconds"]
    assert "near_ties" not in evaluate(finished[0], overrides=["metrics=[]"])


def test_other_pairs_are_scored_whole(finished, recipe, tmp_path):
    other = table(tmp_path / "other.tsv", [("abc", "cba"), ("dad", "dad")])
    found = evaluate(finished[0], str(other))
    assert (found["split"], found["examples"], found["tokens"]) == ("all", 2, 8)


def test_a_source_with_several_references_is_scored_once(finished, recipe, tmp_path):
    path = table(tmp_path / "pairs.tsv", [("abc", "cba"), ("abc", "x y"), ("dad", "dad")])
    data = data_of(path, validation=str(path), test=str(path), group_references=True)
    metrics = train(replace(recipe, data=data), tmp_path / "run", quiet=True)
    assert metrics["examples"] == 2
    assert metrics["bleu_signature"].startswith("nrefs:var")


def test_each_language_has_its_scores(two_sides):
    folder, recipe, metrics = two_sides
    assert recipe_of(folder) == recipe
    assert timeless(evaluate(folder)) == {name: value for name, value in timeless(metrics).items() if name != "step"}
    assert metrics["examples"] == 2 * metrics["examples_up"] == 2 * metrics["examples_back"]
    assert {"word_error_up", "word_error_back", "near_ties_up", "perplexity_back"} <= set(metrics)
    assert metrics["tokens"] == metrics["tokens_up"] + metrics["tokens_back"]
    nats = sum(metrics[f"nats_per_token_{side}"] * metrics[f"tokens_{side}"] for side in ("up", "back"))
    assert metrics["nats_per_token"] == pytest.approx(nats / metrics["tokens"])


def test_a_decoder_without_states_reads_again_for_every_token(finished, monkeypatch):
    """All mechanisms here have states; one of a plug-in may have none, and must not fail behind hours of training."""
    with_states = evaluate(finished[0], overrides=["method=beam(width=2, max_length=6)"])
    monkeypatch.setattr(pair_decoding, "to_mechanism", lambda _: SimpleNamespace(claims=Claims(streaming=False)))
    assert isinstance(pair_decoding.stream_of(load(finished[0])[0]), Recomputed)
    without = evaluate(finished[0], overrides=["method=beam(width=2, max_length=6)"])
    assert timeless(without) == timeless(with_states)


def test_each_side_may_have_its_own_vocabulary(recipe, tmp_path):
    path = table(tmp_path / "spelled.tsv", [(word, " ".join(word.upper())) for word in words(90)])
    own = replace(data_of(path), target_tokenizer=TokenizerSettings("words"))
    metrics = train(replace(recipe, data=own), tmp_path / "run", quiet=True)
    model, vocabulary = load(tmp_path / "run")
    assert model.sizes == {"vocabulary_size": 10, "source_vocabulary_size": 10}
    assert (vocabulary.source.token(6).islower(), vocabulary.target.token(6).islower()) == (True, False)
    again = evaluate(tmp_path / "run")
    assert again["nats_per_token"] == metrics["nats_per_token"]
    (found,) = rewriting(tmp_path / "run", GenerateOptions("greedy(max_length=3, min_length=3)"))(
        list(numbered(["abc"], "x"))
    )
    assert set(found.split()) <= set("ABCD")
    assert len(found.split()) == 3


# Answers


@pytest.mark.parametrize("method", ["beam(width=3, max_length=7)", "sampling(max_length=7, temperature=1.5)"])
def test_lines_are_answered_in_order_as_each_alone(finished, method):
    answer = rewriting(finished[0], GenerateOptions(method))
    texts = [*words(40)[::3], "", "  ", "a" * 30, "abba"]
    found = list(answered(numbered(texts, "x"), answer, chunk=5))
    assert found == [answer([line])[0] for line in numbered(texts, "x")]
    assert found == list(answered(numbered(texts, "x"), answer))
    assert [found[i] for i in (-4, -3)] == ["", ""]
    assert len(set(found)) > 2


def test_answers_are_those_that_are_scored(finished, recipe):
    """Drawn ones, too: line i of a file is example i of a split."""
    method = "sampling(max_length=7, temperature=1.5)"
    folder, test = finished[0], load_parallel(recipe.data).test
    drawn = rewriting(folder, GenerateOptions(method, seed=recipe.training.seed))
    found = list(answered(numbered(test.texts, "x"), drawn, chunk=4))
    scored = evaluate(folder, overrides=[f"method={method}", 'metrics=["chrf"]'])
    assert scored["chrf"] == chrf(found, test.references)["chrf"] > 0
    other = list(answered(numbered(test.texts, "x"), rewriting(folder, GenerateOptions(method, seed=1))))
    assert other != found


def test_the_language_is_chosen(two_sides):
    texts = words(12)
    up, back = (
        list(answered(numbered(texts, "x"), rewriting(two_sides[0], GenerateOptions(to=to)))) for to in ("up", "back")
    )
    assert "".join(up).isupper()
    assert "".join(back).islower()


def test_the_command_line_trains_scores_and_answers(recipe, tmp_path, capsys):
    path, folder, lines = tmp_path / "recipe.toml", tmp_path / "run", tmp_path / "lines.txt"
    path.write_text(config.dump(recipe), encoding="utf-8")
    assert command(["train", str(path), "--out", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^bleu signature: nrefs:1\|case:mixed", printed, re.MULTILINE)
    assert re.search(r"^word error: [\d.]+%$", printed, re.MULTILINE)
    assert command(["evaluate", str(folder), "--set", 'method="beam(width=2)"', "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == "beam(width=2)"
    lines.write_text("abc\n\ndab\n", encoding="utf-8")
    assert command(["generate", str(folder), "--input", str(lines), "--method", "greedy(max_length=3)"]) == 0
    assert [bool(line) for line in capsys.readouterr().out.splitlines()] == [True, False, True]
    for others in (["show", str(folder)], ["compare", "--recipe", str(path)], ["predict", str(folder)]):
        assert command(others) != 0
        assert "Traceback" not in capsys.readouterr().err


# What cannot be


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch_tokens=0", "batch_tokens must be a whole number, at least 1, got 0"),
        ("batch_tokens=19", r"batch_tokens must be at least data\.max_source = 20, got 19"),
        ("smoothing=1", r"smoothing must be at least 0 and below 1, got 1"),
        ("method=beem", "method must be one of .*got 'beem' .*did you mean 'beam'"),
        ("method=beam(width=3, results=2)", "results must be 1: a line gets one answer, got 2"),
        ('metrics=["blue"]', r"metrics must be one of .*got 'blue' .*did you mean 'bleu'"),
        (
            "training.batch_size=8",
            r"training\.batch_size must be left as it is, 16: batch_tokens says .*got 8",
        ),
        ("data.write=[]", r"data\.write must be one name or several different ones"),
    ],
)
def test_recipes_that_cannot_be_are_refused(recipe, tmp_path, override, message):
    path = tmp_path / "recipe.toml"
    path.write_text(config.dump(recipe), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_recipe(path, [override])


def test_a_table_of_positions_is_as_long_as_what_is_read(recipe, finished, tmp_path):
    with pytest.raises(ValueError, match=r"model\.max_length must be at least data\.max_source = 20, as posi"):
        replace(recipe, model=replace(MODEL, position="learned", max_length=19))
    learned = replace(recipe, model=replace(MODEL, position="learned", max_length=20))
    train(learned, tmp_path / "run", quiet=True)
    answer = rewriting(tmp_path / "run", GenerateOptions())
    fits, over = "ab" * 9 + "c", "ab" * 10
    assert len(answer(list(numbered([fits], "x")))) == 1
    with pytest.raises(ValueError, match=r"x\.txt, line 2: line must be of at most 20 tokens, .* got 21"):
        answer(list(numbered([fits, over], "x.txt")))


@pytest.mark.parametrize(
    ("method", "longest"),
    [("greedy(max_length=20)", 20), ("greedy(max_length=21)", 0), ("beam(max_length=10, max_ratio=2.0)", 5)],
)
def test_what_is_written_must_have_positions_too(method, longest):
    assert longest_source(20, to_method(method)) == longest


def test_what_cannot_be_scored_is_refused(finished, tmp_path):
    folder = finished[0]
    with pytest.raises(ValueError, match=r"--set must be a change of method, metrics, batch_tokens, got 'mod"):
        evaluate(folder, overrides=["model.width=3"])
    with pytest.raises(ValueError, match="split must be left out for a file"):
        evaluate(folder, "other.tsv", split="test")
    with pytest.raises(ValueError, match="split must be one of test, train, validation, got 'dev'"):
        evaluate(folder, split="dev")
    with pytest.raises(ValueError, match=r"none\.tsv must be a file with pairs in it, got 'none'"):
        evaluate(folder, str(table(tmp_path / "none.tsv", [])))
    with pytest.raises(ValueError, match=r"other\.tsv, line 1: read must be one of .*, got 'word'"):
        evaluate(folder, str(table(tmp_path / "other.tsv", [("a", "b")], header="one\treversed")))
    with pytest.raises(ValueError, match=r"ragged\.tsv, line 3"):
        evaluate(folder, str(table(tmp_path / "ragged.tsv", [("a", "b"), ("a",)])))
    with pytest.raises(FileNotFoundError, match="must be a folder that saccade train has written"):
        load(tmp_path)


def test_files_that_are_not_aligned_are_refused(two_sides, tmp_path):
    for side, lines in (("en", 3), ("back", 3), ("up", 2)):
        (tmp_path / f"words.{side}").write_text("a\n" * lines, encoding="utf-8")
    with pytest.raises(ValueError, match=r"words\.up, line 3: the file must be 3 lines long like .*words\.en, got 2"):
        evaluate(two_sides[0], f"{tmp_path}/words.{{}}")


def test_an_unknown_language_is_refused(finished, two_sides):
    with pytest.raises(ValueError, match=r"to must be one of back, up, got 'bak' .*did you mean 'back'"):
        rewriting(two_sides[0], GenerateOptions(to="bak"))
    with pytest.raises(ValueError, match="to must be one of back, up: the model writes several, got None"):
        rewriting(two_sides[0], GenerateOptions())
    with pytest.raises(ValueError, match="to must be one of reversed, got 'up'"):
        rewriting(finished[0], GenerateOptions(to="up"))


def test_the_vocabulary_of_another_run_is_refused(recipe, tmp_path):
    train(recipe, tmp_path / "run", quiet=True)
    tokenizer = tmp_path / "run" / "tokenizer.json"
    text = tokenizer.read_text(encoding="utf-8")
    tokenizer.write_text(re.sub(r'"a": (\d+)', r'"z": \1', text), encoding="utf-8")
    with pytest.raises(ValueError, match=r"the sources: vocabulary must be that of the model, with digest"):
        load(tmp_path / "run")
    tokenizer.write_text(text, encoding="utf-8")
    load(tmp_path / "run")
    (tmp_path / "run" / "data.json").write_text('{"fingerprint": "1"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"data\.json must be the record of a run's data"):
        load(tmp_path / "run")


def test_a_model_of_another_vocabulary_is_refused(recipe, finished, tmp_path):
    other = table(tmp_path / "other.tsv", [(word + "e", word[::-1]) for word in words(90)])
    train(replace(recipe, data=data_of(other)), tmp_path / "run", quiet=True)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "run" / name).write_bytes((finished[0] / name).read_bytes())
    with pytest.raises(ValueError, match=r"vocabulary must be that of the model, \{.* 10\}, got .* 11\}"):
        load(tmp_path / "run")


def test_a_run_of_pairs_that_have_changed_is_not_resumed(recipe, tmp_path):
    path = table(tmp_path / "pairs.tsv", [(word, word[::-1]) for word in words(90)])
    train(replace(recipe, data=data_of(path)), tmp_path / "run", quiet=True)
    table(path, [(word, word) for word in words(90)])
    with pytest.raises(ValueError, match="data must be what the run began with"):
        resume(tmp_path / "run", quiet=True)


def test_an_empty_split_is_refused(recipe, tmp_path):
    empty = table(tmp_path / "empty.tsv", [])
    with pytest.raises(ValueError, match=r"empty\.tsv must be a file with pairs in it to make the part test"):
        prepare(replace(recipe, data=replace(recipe.data, test=str(empty))))

"""Sequence to sequence: scored, and set to work on lines."""

import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from reversing import data_of, table, words
from stopping import timeless

from saccade import config
from saccade.claims import Claims
from saccade.cli import run as command
from saccade.data.parallel import load_parallel
from saccade.data.tokenizer_training import TokenizerSettings
from saccade.generation import Recomputed
from saccade.tasks import pair_decoding, recipe_of, train
from saccade.tasks.answers import GenerateOptions, answered, numbered
from saccade.tasks.pair_scores import surprise
from saccade.tasks.rewriting import rewriting
from saccade.tasks.seq2seq import evaluate, load, prepare
from saccade.tasks.text_metrics import chrf


def test_a_score_is_that_of_every_token_alone(reversing_recipe):
    work = prepare(reversing_recipe)
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


def test_a_run_can_be_scored_again(reversing_run, reversing_recipe):
    folder, metrics = reversing_run
    assert recipe_of(folder) == reversing_recipe
    assert metrics == json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    again = evaluate(folder)
    assert timeless(again) == {name: value for name, value in timeless(metrics).items() if name != "step"}
    assert (again["split"], again["data"]) == ("test", reversing_recipe.data.source)
    assert again["perplexity"] == pytest.approx(math.exp(again["nats_per_token"]))
    data = load_parallel(reversing_recipe.data)
    for split in ("train", "validation"):
        assert evaluate(folder, overrides=["metrics=[]"], split=split)["examples"] == len(data.splits[split])


def test_overrides_change_how_it_is_scored(reversing_run):
    found = evaluate(
        reversing_run[0], overrides=["method=beam(width=2, max_length=4)", 'metrics=["per"]', "batch_tokens=30"]
    )
    assert found["method"] == "beam(width=2, max_length=4)"
    assert "per" in found
    assert "bleu" not in found
    assert found["near_ties"] >= 0 < found["seconds"]
    assert "near_ties" not in evaluate(reversing_run[0], overrides=["metrics=[]"])


def test_other_pairs_are_scored_whole(reversing_run, reversing_recipe, tmp_path):
    other = table(tmp_path / "other.tsv", [("abc", "cba"), ("dad", "dad")])
    found = evaluate(reversing_run[0], str(other))
    assert (found["split"], found["examples"], found["tokens"]) == ("all", 2, 8)


def test_a_source_with_several_references_is_scored_once(reversing_run, reversing_recipe, tmp_path):
    path = table(tmp_path / "pairs.tsv", [("abc", "cba"), ("abc", "x y"), ("dad", "dad")])
    data = data_of(path, validation=str(path), test=str(path), group_references=True)
    metrics = train(replace(reversing_recipe, data=data), tmp_path / "run", quiet=True)
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


def test_a_decoder_without_states_reads_again_for_every_token(reversing_run, monkeypatch):
    """All mechanisms here have states; one of a plug-in may have none, and must not fail behind hours of training."""
    with_states = evaluate(reversing_run[0], overrides=["method=beam(width=2, max_length=6)"])
    monkeypatch.setattr(pair_decoding, "to_mechanism", lambda _: SimpleNamespace(claims=Claims(streaming=False)))
    assert isinstance(pair_decoding.stream_of(load(reversing_run[0])[0]), Recomputed)
    without = evaluate(reversing_run[0], overrides=["method=beam(width=2, max_length=6)"])
    assert timeless(without) == timeless(with_states)


def test_each_side_may_have_its_own_vocabulary(reversing_recipe, tmp_path):
    path = table(tmp_path / "spelled.tsv", [(word, " ".join(word.upper())) for word in words(90)])
    own = replace(data_of(path), target_tokenizer=TokenizerSettings("words"))
    metrics = train(replace(reversing_recipe, data=own), tmp_path / "run", quiet=True)
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
def test_lines_are_answered_in_order_as_each_alone(reversing_run, method):
    answer = rewriting(reversing_run[0], GenerateOptions(method))
    texts = [*words(40)[::3], "", "  ", "a" * 30, "abba"]
    found = list(answered(numbered(texts, "x"), answer, chunk=5))
    assert found == [answer([line])[0] for line in numbered(texts, "x")]
    assert found == list(answered(numbered(texts, "x"), answer))
    assert [found[i] for i in (-4, -3)] == ["", ""]
    assert len(set(found)) > 2


def test_answers_are_those_that_are_scored(reversing_run, reversing_recipe):
    """Drawn ones, too: line i of a file is example i of a split."""
    method = "sampling(max_length=7, temperature=1.5)"
    folder, test = reversing_run[0], load_parallel(reversing_recipe.data).test
    drawn = rewriting(folder, GenerateOptions(method, seed=reversing_recipe.training.seed))
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


def test_the_command_line_trains_scores_and_answers(reversing_recipe, tmp_path, capsys):
    path, folder, lines = tmp_path / "recipe.toml", tmp_path / "run", tmp_path / "lines.txt"
    path.write_text(config.dump(reversing_recipe), encoding="utf-8")
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

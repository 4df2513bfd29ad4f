"""Sequence to sequence: what is refused, and with which words."""

import re
from dataclasses import replace

import pytest
from reversing import MODEL, data_of, table, words

from saccade import config
from saccade.tasks import load_recipe, resume, train
from saccade.tasks.answers import GenerateOptions, numbered, to_method
from saccade.tasks.rewriting import longest_source, rewriting
from saccade.tasks.seq2seq import evaluate, load, prepare


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
def test_recipes_that_cannot_be_are_refused(reversing_recipe, tmp_path, override, message):
    path = tmp_path / "recipe.toml"
    path.write_text(config.dump(reversing_recipe), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_recipe(path, [override])


def test_a_table_of_positions_is_as_long_as_what_is_read(reversing_recipe, reversing_run, tmp_path):
    with pytest.raises(ValueError, match=r"model\.max_length must be at least data\.max_source = 20, as posi"):
        replace(reversing_recipe, model=replace(MODEL, position="learned", max_length=19))
    learned = replace(reversing_recipe, model=replace(MODEL, position="learned", max_length=20))
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


def test_what_cannot_be_scored_is_refused(reversing_run, tmp_path):
    folder = reversing_run[0]
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


def test_an_unknown_language_is_refused(reversing_run, two_sides):
    with pytest.raises(ValueError, match=r"to must be one of back, up, got 'bak' .*did you mean 'back'"):
        rewriting(two_sides[0], GenerateOptions(to="bak"))
    with pytest.raises(ValueError, match="to must be one of back, up: the model writes several, got None"):
        rewriting(two_sides[0], GenerateOptions())
    with pytest.raises(ValueError, match="to must be one of reversed, got 'up'"):
        rewriting(reversing_run[0], GenerateOptions(to="up"))


def test_the_vocabulary_of_another_run_is_refused(reversing_recipe, tmp_path):
    train(reversing_recipe, tmp_path / "run", quiet=True)
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


def test_a_model_of_another_vocabulary_is_refused(reversing_recipe, reversing_run, tmp_path):
    other = table(tmp_path / "other.tsv", [(word + "e", word[::-1]) for word in words(90)])
    train(replace(reversing_recipe, data=data_of(other)), tmp_path / "run", quiet=True)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "run" / name).write_bytes((reversing_run[0] / name).read_bytes())
    with pytest.raises(ValueError, match=r"vocabulary must be that of the model, \{.* 10\}, got .* 11\}"):
        load(tmp_path / "run")


def test_a_run_of_pairs_that_have_changed_is_not_resumed(reversing_recipe, tmp_path):
    path = table(tmp_path / "pairs.tsv", [(word, word[::-1]) for word in words(90)])
    train(replace(reversing_recipe, data=data_of(path)), tmp_path / "run", quiet=True)
    table(path, [(word, word) for word in words(90)])
    with pytest.raises(ValueError, match="data must be what the run began with"):
        resume(tmp_path / "run", quiet=True)


def test_an_empty_split_is_refused(reversing_recipe, tmp_path):
    empty = table(tmp_path / "empty.tsv", [])
    with pytest.raises(ValueError, match=r"empty\.tsv must be a file with pairs in it to make the part test"):
        prepare(replace(reversing_recipe, data=replace(reversing_recipe.data, test=str(empty))))

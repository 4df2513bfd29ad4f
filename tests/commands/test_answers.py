import io
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from calls import SMALL

from saccade import __main__
from saccade.cli import run
from saccade.data.tokenizer import BOS
from saccade.generation import Windowed, generate
from saccade.tasks.answers import GenerateOptions, Line, answered, numbered, seeds_of, to_method
from saccade.tasks.continuation import SPECIAL, continuation


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """The run of a language model."""
    folder = tmp_path_factory.mktemp("writer")
    (folder / "text.txt").write_text("the cat sat on the mat\n" * 90, encoding="utf-8")
    (folder / "recipe.toml").write_text(
        f'task = "language_model"\n[data]\nsource = "{folder}/text.txt"\n[windows]\nlength = 12\n', encoding="utf-8"
    )
    assert run(["train", f"{folder}/recipe.toml", "--out", f"{folder}/run", *SMALL]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def labeller(tmp_path_factory):
    """The run of a classifier."""
    folder = tmp_path_factory.mktemp("labeller")
    rows = [f"{'ab'[i % 2] * (i % 13 + 1)},{'ab'[i % 2]}" for i in range(120)]
    (folder / "letters.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    (folder / "recipe.toml").write_text(f'[data]\nsource = "{folder}/letters.csv"\nlength = 6\n', encoding="utf-8")
    learns = ["--set", "training.steps=60", "--set", "training.learning_rate=0.02"]
    assert run(["train", f"{folder}/recipe.toml", "--out", f"{folder}/run", *SMALL, *learns]) == 0
    return folder / "run"


def answers(capsys, *arguments):
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments):
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return out, err


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("the\n\nthe cat sat on\nthe cat\n", encoding="utf-8")
    return path


# In general


def test_lines_are_read_no_further_ahead_than_a_chunk():
    read = 0

    def texts():
        nonlocal read
        for number in range(1000):
            read += 1
            yield str(number)

    for number, found in enumerate(answered(numbered(texts(), "x"), lambda some: [line.text for line in some], 7)):
        assert found == str(number)
        assert read <= number + 7
    assert read == 1000


def test_an_answer_for_each_line():
    with pytest.raises(ValueError, match="answers must be one for each of the 2 lines, got 1"):
        list(answered(numbered(["a", "b"], "x"), lambda some: ["one"]))


def test_a_line_draws_the_same_wherever_it_stands():
    some = [Line(number, "", "") for number in (3, 1)]
    assert seeds_of(some, 5).tolist() == seeds_of(some[::-1], 5).flip(0).tolist()
    assert len({*seeds_of(some, 5).tolist(), *seeds_of(some, 6).tolist()}) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beam(width=0)", "width must be a whole number, at least 1, got 0"),
        ("beem", "method must be one of beam, greedy, sampling, got 'beem' (did you mean 'beam'?)"),
        ("beam(wide=3)", "option of beam must be one of"),
        ("3", "method must be a call such as beam"),
        ("sampling(results=2)", "results must be 1: a line gets one answer, got 2"),
    ],
)
def test_methods_that_cannot_be(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        to_method(text)


# generate


@pytest.mark.parametrize("method", ["greedy(max_length=9)", "sampling(max_length=9)", "beam(width=2, max_length=9)"])
def test_one_line_out_for_each_line_in(writer, lines, capsys, method):
    whole = answers(capsys, "generate", writer, "--input", lines, "--method", method)
    assert whole.count("\n") == 4
    assert whole == answers(capsys, "generate", writer, "--input", lines, "--method", method, "--at-once", "1")


def test_seeds_decide_what_is_drawn(writer, lines, capsys):
    found = {answers(capsys, "generate", writer, "--input", lines, "--seed", seed) for seed in "001"}
    assert len(found) == 2


def test_a_prompt_is_answered_as_it_is(writer, capsys):
    found = answers(capsys, "generate", writer, "--prompt", "the\ncat", "--method", "greedy(max_length=5)")
    assert 1 <= len(found.encode()) <= 6


def test_line_ends_inside_an_answer_stay_on_the_line(writer, monkeypatch, capsys, lines):
    monkeypatch.setattr(
        "saccade.tasks.continuation.Continuation.__call__", lambda self, some: ["a\r\nb" for line in some]
    )
    assert answers(capsys, "generate", writer, "--input", lines) == "a\\r\\nb\n" * 4


def test_a_pipe_is_read(writer, capsys, monkeypatch):
    piped = SimpleNamespace(buffer=io.BytesIO("the\ncät".encode()), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", piped)
    assert answers(capsys, "generate", writer, "--method", "greedy(max_length=3)").count("\n") == 2


def test_answers_in_a_file(writer, lines, tmp_path, capsys):
    out = tmp_path / "out.txt"
    arguments = ("generate", writer, "--input", lines, "--method", "greedy(max_length=4)")
    assert answers(capsys, *arguments, "--output", out) == ""
    assert out.read_text(encoding="utf-8") == answers(capsys, *arguments)
    assert "out.txt already exists and is never overwritten" in refused(capsys, *arguments, "--output", out)[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.txt", "out.txt"]


def test_a_line_that_is_no_text(writer, tmp_path, capsys):
    (tmp_path / "bad.txt").write_bytes(b"the\nthe\nca\xfft\nthe\n")
    arguments = ("generate", writer, "--input", tmp_path / "bad.txt", "--at-once", "1", "--output", tmp_path / "out")
    said = refused(capsys, *arguments)[1]
    assert "bad.txt, line 3: the file must be UTF-8, got byte 0xff at offset 10 of the file" in said
    assert f"the answers so far are in {tmp_path / 'out'}.partial" in said
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial").read_text(encoding="utf-8").count("\n") == 2


def test_answers_that_were_cut_off_are_not_lost(writer, lines, tmp_path, capsys):
    arguments = ("generate", writer, "--input", lines, "--output", tmp_path / "out")
    (tmp_path / "out.partial").write_text("answers\n", encoding="utf-8")
    assert "it holds answers of a call that was cut off" in refused(capsys, *arguments)[1]
    assert (tmp_path / "out.partial").read_text(encoding="utf-8") == "answers\n"


def test_nothing_is_left_where_nothing_was_answered(writer, tmp_path, capsys):
    arguments = ("generate", writer, "--input", tmp_path / "no.txt", "--output", tmp_path / "out")
    assert "so far" not in refused(capsys, *arguments)[1]
    assert not list(tmp_path.iterdir())
    missing = tmp_path / "missing/out"
    assert "--output must be in a folder that is there" in refused(capsys, "generate", writer, "--output", missing)[1]


def test_a_prompt_stands_alone(writer, tmp_path, capsys):
    arguments = ("generate", writer, "--prompt", "the", "--output", tmp_path / "out")
    assert "--prompt must be given without --input and --output" in refused(capsys, *arguments)[1]


def test_there_is_no_source_to_count_tokens_of(writer, lines, capsys):
    said = refused(capsys, "generate", writer, "--input", lines, "--method", "beam(width=2, max_ratio=1.5)")[1]
    assert "max_ratio must be 0 for a language model, which has no source, got 1.5" in said


def test_what_generate_refuses(writer, labeller, lines, capsys, tmp_path):
    assert "try: saccade predict" in refused(capsys, "generate", labeller, "--input", lines)[1]
    assert "to must be left out for a language model" in refused(capsys, "generate", writer, "--to", "de")[1]
    assert "did you mean 'greedy'?" in refused(capsys, "generate", writer, "--method", "gready")[1]
    assert "no.txt must be a file that can be read" in refused(capsys, "generate", writer, "--input", "no.txt")[1]
    assert "run must be a folder that saccade train has written" in refused(capsys, "generate", tmp_path)[1]


def test_texts_are_longer_than_windows_and_tables_of_positions(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n" * 90, encoding="utf-8")
    recipe = f'task = "language_model"\n[data]\nsource = "{tmp_path}/text.txt"\n[windows]\nlength = 12\n'
    (tmp_path / "recipe.toml").write_text(recipe, encoding="utf-8")
    (tmp_path / "lines.txt").write_text("the cat\nthe cat sat on the mat\n", encoding="utf-8")
    learned = ["--set", 'model.position="learned"', "--set", "model.max_length=12"]
    assert run(["train", f"{tmp_path}/recipe.toml", "--out", f"{tmp_path}/run", *SMALL, *learned]) == 0
    arguments = ("generate", tmp_path / "run", "--input", tmp_path / "lines.txt", "--method", "greedy(max_length=40)")
    assert answers(capsys, *arguments).count("\n") == 2


def test_reading_on_is_not_asked_for(writer):
    """As with `| head -1`: the program ends, and complains of nothing."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__main__.__file__).parents[1])}
    command = [sys.executable, "-m", "saccade", "generate", str(writer), "--method", "greedy(max_length=1)"]
    with subprocess.Popen(
        [*command, "--at-once", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(b"the\n")
        process.stdin.flush()
        assert process.stdout.readline()
        process.stdout.close()
        process.stdin.write(b"the\n" * 10)
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


# predict


def test_labels_of_lines(labeller, tmp_path, capsys):
    texts = ["a", "bbb", "", "aaaaaaaaaaaaaa", "bb"]
    (tmp_path / "lines.txt").write_text("\n".join(texts), encoding="utf-8")
    found = answers(capsys, "predict", labeller, "--input", tmp_path / "lines.txt")
    rows = [line.split("\t") for line in found.splitlines()]
    assert [row[0] for row in rows] == ["a", "b", "", "a", "b"]
    assert all(0.5 < float(row[1]) <= 1 for row in rows if row[0])
    assert found == answers(capsys, "predict", labeller, "--input", tmp_path / "lines.txt", "--at-once", "2")


def test_a_line_of_white_space_has_no_label(labeller, tmp_path, capsys):
    (tmp_path / "lines.txt").write_text("a\n  \n", encoding="utf-8")
    assert answers(capsys, "predict", labeller, "--input", tmp_path / "lines.txt").split("\n")[1] == ""


def test_predict_is_not_for_writers(writer, lines, capsys):
    assert "try: saccade generate" in refused(capsys, "predict", writer, "--input", lines)[1]


def test_answers_that_cannot_be_printed_are_told_of(writer, tmp_path, monkeypatch, capsys):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

    (tmp_path / "lines.txt").write_text("the\n", encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", Full())
    code = run(["generate", str(writer), "--input", str(tmp_path / "lines.txt"), "--method", "greedy(max_length=1)"])
    monkeypatch.undo()
    assert code == 1
    assert "could not write all answers: No space left on device" in capsys.readouterr().err


def test_a_long_line_is_gone_on_with_as_if_all_of_it_had_been_read(writer):
    """The window has 12 tokens: what it forgot is cut off before, beside lines of other lengths."""
    answer = continuation(writer, GenerateOptions("greedy(max_length=30)"))
    lines = list(numbered(["the cat " * 9, "a", "the mat on the", "", "sat " * 40], "x"))
    prompts = [torch.cat([torch.tensor([BOS]), answer.tokenizer.encode(line.text)])[None].long() for line in lines]
    windowed = Windowed(answer.model, answer.window)
    whole = [generate(windowed, answer.method, prompt, SPECIAL) for prompt in prompts]
    wanted = [answer.tokenizer.decode(each.tokens[0, : each.lengths[0] - each.ended[0].long()]) for each in whole]
    assert answer(lines) == wanted
    assert max(prompt.shape[1] for prompt in prompts) > 5 * answer.window

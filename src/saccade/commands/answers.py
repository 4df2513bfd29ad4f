"""`saccade generate` and `saccade predict`: a trained model answers lines, one line out for each line in, in order."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from saccade.commands.output import say

if TYPE_CHECKING:
    from saccade.tasks.answers import Answer

GENERATE_EXAMPLE = "saccade generate runs/multi30k --input english.txt --output german.txt"
PREDICT_EXAMPLE = "saccade predict runs/pos --input sentences.txt"

RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A run that `saccade train` has finished.")]
Input = Annotated[str, typer.Option("--input", metavar="FILE|-", help="The lines, UTF-8 (.gz too); - reads a pipe.")]
Output = Annotated[Path | None, typer.Option(metavar="FILE", help="A new file. Otherwise answers are printed.")]
AtOnce = Annotated[int, typer.Option(min=1, help="Lines that are read before they are answered.")]


def generate(
    run_folder: RunFolder,
    source: Input = "-",
    output: Output = None,
    prompt: Annotated[str | None, typer.Option(help="Answer this text instead of lines.")] = None,
    method: Annotated[
        str | None, typer.Option(help="greedy, sampling(temperature=0.8, top_p=0.9), beam(width=5), ...")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Which side to write, such as de, where a model has several.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    at_once: AtOnce = 256,
) -> None:
    """Let the model of a run write: what comes after a text, or what a text becomes.

    One line out for each line in, in order. A line end inside an answer is written as two signs, a backslash and an n.
    """
    from saccade.tasks import TASKS, recipe_of
    from saccade.tasks.answers import GenerateOptions, numbered

    make = TASKS[recipe_of(run_folder).task].generate
    if make is None:
        raise ValueError(f"{run_folder}: its model writes nothing; try: saccade predict {run_folder}")
    if prompt is not None and (source != "-" or output is not None):
        raise ValueError("--prompt must be given without --input and --output: it is answered and printed as it is")
    _refuse_output(output)
    answer = make(run_folder, GenerateOptions(method, to, seed))
    if prompt is None:
        _answer_lines(answer, source, output, at_once)
    else:
        say(answer(list(numbered([prompt], "--prompt")))[0])


def predict(run_folder: RunFolder, source: Input = "-", output: Output = None, at_once: AtOnce = 256) -> None:
    """Label lines with the model of a run: each line, or each word of it.

    One line out for each line in, in order.
    """
    from saccade.tasks import TASKS, recipe_of

    make = TASKS[recipe_of(run_folder).task].predict
    if make is None:
        raise ValueError(f"{run_folder}: its model labels nothing; try: saccade generate {run_folder}")
    _refuse_output(output)
    _answer_lines(make(run_folder), source, output, at_once)


def _answer_lines(answer: "Answer", source: str, output: Path | None, at_once: int) -> None:
    """Answer all lines of a file, or of what is piped in."""
    from saccade.data.lines import decoded, read_texts
    from saccade.tasks.answers import answered, numbered

    if source == "-":
        name, texts = "standard input", (line.rstrip("\r\n") for line in decoded(sys.stdin.buffer, "standard input"))
        at_once = 1 if sys.stdin.isatty() else at_once
    else:
        name, texts = source, read_texts(Path(source))
    with _open(output) as file:
        for number, text in enumerate(answered(numbered(texts, name), answer, at_once), start=1):
            file.write(text.replace("\r", "\\r").replace("\n", "\\n") + "\n")
            if number % at_once == 0:
                file.flush()


def _refuse_output(output: Path | None) -> None:
    """Refuse a place for answers before a model is loaded for them."""
    if output is None:
        return
    from saccade.writing import refuse_existing

    refuse_existing(output, "choose another file with --output")
    refuse_existing(_partial(output), "it holds answers of a call that was cut off; take them and remove it")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"--output must be in a folder that is there, got {output}")


def _partial(output: Path) -> Path:
    return output.with_name(f"{output.name}.partial")


@contextmanager
def _open(output: Path | None) -> Iterator[TextIO]:
    """Where answers go: what is printed, or a file that bears its name only once it is whole.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    if output is None:
        yield from _printed()
        return
    partial = _partial(output)
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
    except BaseException:
        if partial.is_file() and not partial.stat().st_size:
            partial.unlink()
        elif partial.is_file():
            sys.stderr.write(f"the answers so far are in {partial}\n")
        raise
    partial.replace(output)


def _printed() -> Iterator[TextIO]:
    """What is printed, for as long as somebody reads it."""
    try:
        yield sys.stdout
        _flush()
    except BrokenPipeError:
        # As after `| head`: nobody reads on. What python would still flush at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(f"could not write all answers: {error.strerror}") from error

"""The command line: it registers the commands, and turns what goes wrong into one line and an exit code.

What a user can get wrong is one line on stderr, never a traceback (but with `--debug`): 2 for input that cannot be, 1
for a run or a check that failed, 130 for Ctrl-C. A command is a function in `saccade.commands` and one line here.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from saccade._version import __version__
from saccade.commands import answers, check, compare, evaluate, measure, show, sweep, train
from saccade.commands.output import BAD_INPUT, FAILED, INTERRUPTED, say

NEEDS_TRAIN = ("accelerate", "datasets", "psutil", "safetensors")

COMMANDS = {
    show.show: show.EXAMPLE,
    measure.cost: measure.COST_EXAMPLE,
    measure.bench: measure.BENCH_EXAMPLE,
    compare.compare: compare.EXAMPLE,
    sweep.sweep: sweep.EXAMPLE,
    train.train: train.EXAMPLE,
    evaluate.evaluate: evaluate.EXAMPLE,
    answers.generate: answers.GENERATE_EXAMPLE,
    answers.predict: answers.PREDICT_EXAMPLE,
    check.check: check.EXAMPLE,
}
"""Each command with an example of its use."""

app = typer.Typer(
    help="Which attention, how fast, how good, on your data and machine?",
    epilog="Example: saccade compare --mechanisms 'full, local(left=64), linear' --length 1024",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns:
        The exit code.
    """
    debug = "--debug" in arguments or os.environ.get("SACCADE_DEBUG", "") not in ("", "0")
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return app(arguments, prog_name="saccade", standalone_mode=False) or 0
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        return _explain(error)


def _explain(error: Exception) -> int:
    """One line about what went wrong, and the exit code it stands for."""
    # What the parser raises has this, whichever parser typer has inside.
    if (message := getattr(error, "format_message", None)) is not None:
        context = getattr(error, "ctx", None)
        hint = f"\ntry: {context.command_path} --help" if context else ""
        return _say(f"error: {message()}{hint}", BAD_INPUT)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in NEEDS_TRAIN:
        return _say(f"error: this command needs {error.name}: pip install 'saccade[train]'", BAD_INPUT)
    text = str(error).strip()
    if type(error).__name__ == "Interrupted":
        return _say(text, INTERRUPTED)
    bad = (ValueError, TypeError, ImportError, FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError)
    if isinstance(error, bad):
        return _say(f"error: {text}", BAD_INPUT)
    if isinstance(error, OSError | FloatingPointError | MemoryError):
        return _say(f"error: {text}", FAILED)
    return _say(f"error: {type(error).__name__}: {text} (add --debug for the traceback)", FAILED)


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"{text}\n")
    return code


def _version(wanted: bool) -> bool:
    if wanted:
        say(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; so does SACCADE_DEBUG=1.")
    ] = False,
) -> None:
    """What goes before the command; `run` has read `--debug` already."""


for _command, _example in COMMANDS.items():
    app.command(epilog=f"Example: {_example}")(_command)

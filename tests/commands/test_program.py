import re
import sys
from pathlib import Path

import pytest
from calls import process, refused

from saccade import __main__, __version__
from saccade.cli import run
from saccade.training import Interrupted


def test_as_a_program():
    done = process("show", "local(left=2)", "--length", "16", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.startswith("local(left=2)\nn = 16, ")
    failed = process("show", "locl")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: mechanism must be one of ")
    assert "did you mean 'local'" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_help_of_every_command_has_an_example(capsys):
    assert run(["--help"]) == 0
    commands = re.findall(r"^  (\w+)  ", capsys.readouterr().out, re.MULTILINE)
    assert {"show", "cost", "bench", "compare", "train", "evaluate", "check"} <= set(commands)
    for command in commands:
        assert run([command, "--help"]) == 0
        assert f"Example: saccade {command} " in capsys.readouterr().out


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_unknown_commands_and_options_name_the_nearest(capsys):
    assert "'show'" in refused(capsys, "shwo")
    assert "--length" in refused(capsys, "show", "local", "--lenght", "3")
    assert "try: saccade show --help" in refused(capsys, "show", "local", "--length", "long")


def test_debug_shows_the_traceback(monkeypatch):
    with pytest.raises(ValueError, match="did you mean 'local'"):
        run(["--debug", "show", "locl"])
    with pytest.raises(ValueError, match="did you mean 'local'"):
        run(["show", "locl", "--debug"])
    monkeypatch.setenv("SACCADE_DEBUG", "1")
    with pytest.raises(ValueError, match="did you mean 'local'"):
        run(["show", "locl"])


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (Interrupted(Path("runs/a"), 7), 130, "stopped after step 7; everything is saved"),
        (KeyboardInterrupt(), 130, ""),
        (FloatingPointError("loss must be finite, got nan"), 1, "error: loss must be finite, got nan"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (PermissionError(13, "Permission denied", "out"), 2, "Permission denied"),
        (ModuleNotFoundError("No module named 'accelerate'", name="accelerate"), 2, "pip install 'saccade[train]'"),
        (KeyError("surprise"), 1, "error: KeyError: 'surprise' (add --debug for the traceback)"),
    ],
)
def test_what_goes_wrong_is_a_line_and_a_code(capsys, monkeypatch, error, code, text):
    def fails(*arguments, **options):
        raise error

    monkeypatch.setattr("saccade.commands.show.look", fails)
    assert run(["show", "local"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert "Traceback" not in err


def test_without_its_libraries_the_command_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "saccade.cli", None)
    with pytest.raises(ModuleNotFoundError):
        __main__.main()
    monkeypatch.delitem(sys.modules, "saccade.cli")
    monkeypatch.setitem(sys.modules, "typer", None)
    assert __main__.main() == 2
    assert capsys.readouterr().err == "error: the command line needs: pip install 'saccade[cli]'\n"

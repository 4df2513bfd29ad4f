"""How tests call the command line."""

import os
import subprocess
import sys
from pathlib import Path

from saccade import __main__
from saccade.cli import run

SMALL = [
    *("--set", "model.width=8", "--set", "model.heads=2", "--set", "model.layers=1", "--set", "model.hidden=8"),
    *("--set", "training.steps=3", "--set", "training.batch_size=5"),
]
"""A model and a training that take no time."""


def refused(capsys, *arguments, code=2):
    """What is said about arguments that are refused: on stderr, without a traceback."""
    assert run([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("error: ")
    return err


def process(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(Path(__main__.__file__).parents[1]), **options}
    command = [sys.executable, "-m", "saccade", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)

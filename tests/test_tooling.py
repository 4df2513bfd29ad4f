"""The rules of the house that tools can check: layers, style, types."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """A tool of this environment, run in the project's root."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_layers_are_kept():
    result = run(str(Path(sys.executable).parent / "lint-imports"))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=lambda c: c[0])
def test_style_is_kept(command):
    result = run(sys.executable, "-m", "ruff", *command, ".")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("node") is None, reason="pyright runs on Node.js, which is not installed")
def test_types_are_right():
    result = run(sys.executable, "-m", "pyright")
    assert result.returncode == 0, result.stdout


def test_the_core_needs_nothing_but_its_three_libraries():
    """Attention, nn and checking import where the extras are not installed, and without torch's compiler."""
    program = """
import sys
extras = ["accelerate", "datasets", "matplotlib", "psutil", "rich", "safetensors", "transformers", "typer", "numpy"]
sys.modules.update(dict.fromkeys(extras))
import saccade, saccade.attention, saccade.nn, saccade.checking
assert "torch._dynamo" not in sys.modules, "which takes as long to import as the rest of torch"
"""
    result = run(sys.executable, "-c", program)
    assert result.returncode == 0, result.stderr

"""Every example runs and says what it is there to say."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SAYS = {
    "swap_attention.py": "mean difference from dense attention",
    "find_a_leak.py": "leaks",
    "export_model.py": "one graph",
    "convert_model.py": "regained",
}
SMALL = {"convert_model.py": ["--steps=4", "--tune=2", "--width=32", "--layers=2", "--length=64", "--batch=4"]}
NEEDS = {"convert_model.py": "transformers"}


def test_every_example_is_listed():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_example_runs(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason="needs the extra: pip install 'saccade[hf]'")
    result = subprocess.run(
        [sys.executable, EXAMPLES / name, *SMALL.get(name, [])], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert SAYS[name] in result.stdout

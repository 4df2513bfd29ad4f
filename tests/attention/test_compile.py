"""`torch.compile` in one graph gives what eager calls give, forward and backward."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_compiled_calls_equal_eager_ones():
    script = Path(__file__).with_name("compiled.py")
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.split() == ["compared"], ended.stdout

"""kill -9 at any moment of a checkpoint write leaves a valid one, and nothing partial is ever taken."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TIMES = 50


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_process_killed_at_any_moment_of_a_write_leaves_a_valid_checkpoint(tmp_path):
    script = Path(__file__).with_name("killed_writes.py")
    done = subprocess.run([sys.executable, str(script), str(tmp_path), str(TIMES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == TIMES
    assert [each for each in found if not each["right"]] == []
    for each in found:
        assert each["step"] in (6, 8)
        assert each["step"] == max(each["whole"])
        assert each["cleaned"] == [f"step-{step:08d}" for step in each["whole"]]
    # The kills came where they should: before, within and after the write, and while older ones were removed.
    left = [" ".join(each["left"]) for each in found]
    assert any("partial-00000008" in names for names in left)
    assert any("partial-00000004" in names for names in left)
    assert {each["step"] for each in found} == {6, 8}
    assert sum("call" in each for each in found) > 10

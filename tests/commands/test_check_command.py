import json
import sys

import pytest
from calls import refused

from saccade.claims import PROBES
from saccade.cli import run

LEAKY = """
import os
import sys
import torch

print("hello from the module")

def leaky(q, k, v, key_mask=None, causal=False):
    print("hello from the call")
    os.write(1, b"hello from below Python\\n")
    return torch.softmax(q @ k.mT, -1) @ v

def broken():
    raise RuntimeError("no")

def exits():
    sys.exit(0)
"""


@pytest.fixture
def leaky(tmp_path, monkeypatch):
    (tmp_path / "leaky_attention.py").write_text(LEAKY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield "leaky_attention"
    sys.modules.pop("leaky_attention", None)


def test_check_prints_nothing_but_json(capfd, leaky):
    assert run(["check", f"{leaky}:leaky", "--json"]) == 1
    printed, said = capfd.readouterr()
    found = {row["probe"]: row["status"] for row in json.loads(printed)}
    assert found["prefix_causality"] == found["padding"] == "failed"
    assert "hello from the module" in said
    assert "hello from the call" in said
    assert "hello from below Python" in said


def test_check_of_a_mechanism_uses_its_claims(capsys):
    assert run(["check", "local(left=3)"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["probe", "status", "violation", "where"]
    assert all("passed" in line or "not claimed" in line for line in lines[1:])
    assert [line.split()[0] for line in lines[1:] if "its claims do not name" in line] == ["permutation"]


def test_check_of_a_gated_mechanism_reads_its_gates_off_the_keys(capsys):
    skipped = [f"--skip={name}" for name in ("padding", "batch", "hidden_nan", "empty_rows", "lengths", "gradients")]
    assert run(["check", "rfa(features=8, gate=True)", *skipped]) == 0
    found = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:])
    assert [name for name in found if found[name] == "passed"] == ["prefix_causality", "chunk", "step", "export"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("locl", "did you mean 'local'"),
        ("leaky_attention:leeky", "did you mean 'leaky'"),
        ("no_such_module:f", "no_such_module"),
        ("leaky_attention:broken", "broken"),
        ("leaky_attention:exits", "exits raised it called sys.exit(0)"),
    ],
)
def test_check_refuses(capsys, leaky, target, message):
    assert run(["check", target]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_check_leaves_out_what_is_skipped(capsys, leaky):
    skipped = [option for probe in PROBES if probe.name != "chunk" for option in ("--skip", probe.name)]
    assert run(["check", f"{leaky}:leaky", *skipped]) == 0
    assert capsys.readouterr().out.count("left out by skip") == len(PROBES) - 1
    assert "did you mean 'weights'" in refused(capsys, "check", "full", "--skip", "weight")


def test_check_lists_its_probes(capsys):
    assert run(["check", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [probe.name for probe in PROBES]
    assert all(probe.shows in line for probe, line in zip(PROBES, lines, strict=True))


def test_check_of_a_mechanism_is_on_qkv(capsys):
    assert "on must be qkv for a mechanism, got 'x'" in refused(capsys, "check", "full", "--on", "x")

"""Mechanisms of other packages: found by their entry points, known everywhere, and harmless where they are broken."""

import logging
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from saccade import __version__
from saccade.attention import MECHANISMS, to_mechanism
from saccade.attention.expressions import read
from saccade.attention.plug_ins import GROUP, Mechanisms

ROOT = Path(__file__).parents[2]

SPEC = """
from dataclasses import dataclass
from saccade.attention import MECHANISMS

@dataclass(frozen=True, repr=False)
class Mine(MECHANISMS["efficient"]):
    name = "mine"
    width: int = 3
"""
PLAIN = """
from dataclasses import dataclass
from saccade.attention import Mechanism

class Mine(Mechanism):
    name = "mine"
    build = cost = claims = None
"""
MADE = Counter()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a package with entry points and a module of its name where Python looks for installed ones."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(package, entries, code=SPEC):
        MADE[package] += 1
        module = f"{package}_{MADE[package]}_module"  # a new one for each test: Python keeps what it has imported
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"[{GROUP}]", *(f"{name} = {module}:{attribute}" for name, attribute in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines))
        return module

    return install


@pytest.fixture
def listed():
    """THE LIST of a process that starts now."""
    fresh = Mechanisms()
    fresh |= {"full": MECHANISMS["full"], "linear": MECHANISMS["linear"]}
    return fresh


def refusal(listed, name="mine"):
    """Why a plug-in cannot be used, as it is told to whoever asks for it."""
    assert name not in listed
    assert name not in list(listed)
    with pytest.raises(ValueError, match=f"the plug-in '{name}' of ") as told:
        listed[name]
    with pytest.raises(ValueError, match=f"the plug-in '{name}' of "):
        read(f"{name}(width=4)", listed, "mechanism")
    assert listed.broken == {name: str(told.value)}
    return str(told.value)


def test_without_plug_ins_it_is_a_dictionary(listed):
    assert list(listed) == ["full", "linear"]
    assert len(listed) == 2
    assert listed == {"full": MECHANISMS["full"], "linear": MECHANISMS["linear"]}
    assert "ful" not in listed
    assert 3 not in listed
    with pytest.raises(KeyError, match="ful"):
        listed["ful"]
    listed["more"] = MECHANISMS["full"]
    assert list(listed) == ["full", "linear", "more"]
    del listed["more"]
    assert dict(listed) == listed


def test_a_plug_in_is_imported_when_it_is_asked_for(install, listed):
    module = install("plug", {"mine": "Mine"})
    assert "linear" in listed
    assert listed["full"] is MECHANISMS["full"]
    assert module not in sys.modules
    assert listed["mine"].name == "mine"
    assert "mine" in listed
    assert listed["mine"] is sys.modules[module].Mine is dict(listed)["mine"]
    assert list(listed) == ["full", "linear", "mine"]
    assert len(listed) == 3
    assert not listed.broken
    assert repr(read("mine(width=4)", listed, "mechanism")) == "mine(width=4)"


def test_plug_ins_are_listed_by_name_behind_our_own(install, listed):
    install("plug", {"mine": "Mine", "another": "Another"}, SPEC + "\nclass Another(Mine):\n    name = 'another'\n")
    assert list(listed) == ["full", "linear", "another", "mine"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no\\nwhy')", "could not be imported from .*:Mine: RuntimeError: no$"),
        ("import no_such_module_at_all", "could not be imported from .*: ModuleNotFoundError: No module named "),
        ("import sys; sys.exit(0)", "could not be imported from .*: SystemExit: 0"),
        ("mine = 3", "could not be imported from .*: AttributeError: module .* has no attribute 'Mine'"),
        ("Mine = 3", "must be a subclass of saccade.attention.Mechanism, got 3"),
        ("class Mine: pass", "must be a subclass of saccade.attention.Mechanism, got <class "),
        (SPEC + "Mine = Mine()", "must be a subclass of saccade.attention.Mechanism, got mine"),
        (SPEC.replace('"mine"', '"other"'), "^the name of .* must be that of its entry point, 'mine', got 'other'"),
        (SPEC.replace('    name = "mine"\n', ""), "^the name of .* must be that of its .*, 'mine', got 'efficient'"),
        ("from saccade.attention import Mechanism\nclass Mine(Mechanism): pass", "^the name of .*, got None"),
        (
            "from saccade.attention import Mechanism\nclass Mine(Mechanism): name = 'mine'",
            "must be a mechanism with build, claims, cost, got 'none'",
        ),
        (PLAIN, "must be a frozen dataclass, got <class "),
        (PLAIN.replace("class M", "@dataclass(repr=False)\nclass M"), "must be a frozen dataclass, got <class "),
        (SPEC.replace("int = 3", "int"), "^option 'width' of the plug-in .* must be one with a default, got 'none'"),
        (SPEC.replace(", repr=False", ""), "^what .* prints must be 'mine' .*repr=False.*, got 'Mine\\(width=3\\)'"),
        (SPEC + "    claims = None", "^claims of the plug-in .* must be saccade.claims.Claims, got None"),
        (SPEC + "    inputs = ('q', 'w')", "^input of the plug-in .* must be one of gate, k, q, v, got 'w'"),
        (SPEC + "    def __post_init__(self): 1 / 0", "could not be made with .*: ZeroDivisionError: division by zero"),
        (
            SPEC + "    def __post_init__(self): raise ValueError('too wide')",
            "of bad 1.0 could not be made .*: too wide",
        ),
    ],
)
def test_a_broken_plug_in_is_refused_by_name_and_harms_no_other(install, listed, caplog, code, reason):
    install("bad", {"mine": "Mine"}, code)
    install("good", {"good": "Mine"}, SPEC.replace('"mine"', '"good"'))
    assert list(listed) == ["full", "linear", "good"]
    (told,) = caplog.records
    assert told.levelno == logging.WARNING
    assert told.getMessage() == f"left out: {refusal(listed)}"
    assert "the plug-in 'mine' of bad 1.0" in refusal(listed)
    with pytest.raises(ValueError, match=reason):
        listed["mine"]
    assert list(listed) == ["full", "linear", "good"]
    assert len(caplog.records) == 1, "each is warned of once"


def test_what_is_broken_is_not_warned_of_where_it_is_listed(install, listed, caplog):
    install("bad", {"mine": "Mine"}, "raise RuntimeError('no')")
    assert list(listed.broken) == ["mine"]
    assert list(listed) == ["full", "linear"]
    assert not caplog.records


@pytest.mark.parametrize("name", ["linear", "Local"])
def test_our_own_names_are_not_given_away(install, listed, caplog, name):
    install("plug", {name: "Mine"}, SPEC.replace('"mine"', repr(name)))
    own = listed["linear"]
    assert own is MECHANISMS["linear"]
    (told,) = caplog.records
    wanted = f"the plug-in '{name}' of plug 1.0 must be of another name than any mechanism or pattern of saccade"
    assert told.getMessage() == f"left out: {wanted} {__version__}, got '{name}'"
    assert listed.broken == {name: told.getMessage().removeprefix("left out: ")}
    assert list(listed) == ["full", "linear"]
    with pytest.raises(KeyError):
        listed["Local"]


def test_a_name_that_no_expression_can_hold_is_refused(install, listed):
    install("plug", {"my-own": "Mine"}, SPEC.replace('"mine"', '"my-own"'))
    assert "my-own" not in listed
    assert listed.broken["my-own"].endswith("must be a word, of letters, digits and _, got 'my-own'")


def test_two_packages_with_one_name_are_both_refused(install, listed):
    install("plug", {"mine": "Mine"})
    install("other", {"mine": "Mine"})
    with pytest.raises(ValueError, match=r"the plug-in 'mine' must be of one package, got '(other|plug) 1.0 and "):
        listed["mine"]
    assert all(package in listed.broken["mine"] for package in ("plug 1.0", "other 1.0"))
    assert list(listed) == ["full", "linear"]


def test_one_that_asks_for_itself_in_its_own_import_is_found_later(install, listed, caplog, monkeypatch):
    monkeypatch.setattr("saccade.attention.mechanisms._names.MECHANISMS", listed)
    asks = "from saccade.attention.mechanisms import _names\nBEFORE = list(_names.MECHANISMS)\n"
    module = install("plug", {"mine": "Mine"}, asks + SPEC)
    assert __import__(module).BEFORE == ["full", "linear"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert list(listed) == ["full", "linear", "mine"]
    assert not listed.broken


CONTRACT = """
spec = to_mechanism("sharpened")
assert check(spec.build(heads=2, head_dim=8, value_dim=5), claims=spec.claims, width=8).passed
"""
"""The test that CONTRIBUTING advises."""

EVERYWHERE = """
import contextlib, io, json, sys
from pathlib import Path
{first}
assert not any(name in sys.modules for name in {unasked}), "importing saccade imports no plug-in"
import torch
from saccade.attention import MECHANISMS, to_mechanism
from saccade.cli import run
from saccade.nn import MultiHeadAttention
from saccade.tasks import load_recipe

layer = MultiHeadAttention(8, 2, mechanism="sharpened(start=2)")
full = MultiHeadAttention(8, 2)
full.load_state_dict(layer.state_dict(), strict=False)
x = torch.randn(2, 9, 8)
assert layer(x).shape == full(x).shape and not torch.allclose(layer(x), full(x))
assert "bad" not in sys.modules, "what is not asked for is not imported"

assert list(MECHANISMS)[-1] == "sharpened" and "bad" not in MECHANISMS
assert MECHANISMS["sharpened"].__module__ == "sharpened"
assert repr(to_mechanism("sharpened(start=2)")) == "sharpened(start=2)"
mixture = to_mechanism("mixed(parts=[('sharpened(start=2)', 1), (linear, 1)])")
assert to_mechanism(repr(mixture)) == mixture
recipe = Path("recipe.toml")
recipe.write_text('[data]\\nsource = "rows.csv"\\n[model]\\nlayers = 1\\nmechanism = ["sharpened(start=2)"]\\n')
assert load_recipe(recipe).model.mechanism == ("sharpened(start=2)",)
Path("rows.csv").write_text("\\n".join(["text,label", *(f"{{i:03}},{{'ab'[i % 2]}}" for i in range(40))]))

def said(*arguments, code=0):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = run(list(arguments))
    assert found == code, (found, out.getvalue(), err.getvalue())
    return out.getvalue() + err.getvalue()

small = [part for key in ("model.width=8", "model.heads=2", "model.layers=1", "model.hidden=8",
         "training.steps=2", "training.batch_size=4") for part in ("--set", key)]
told = said("show")
assert "sharpened           Softmax attention; each head learns how sharp it is." in told
assert "bad                 left out: the plug-in 'bad' of plug 1.0 could not be imported from bad:Mine" in told
assert "linear              left out: the plug-in 'linear' of plug 1.0 must be of another name" in told
assert "error: the plug-in 'bad' of plug 1.0 could not be imported" in said("show", "bad", code=2)
assert "sharpened(start=2)" in said("show", "sharpened(start=2)", "--length", "8")
assert json.loads(said("cost", "sharpened", "--lengths", "16", "--json"))["costs"][0]["mechanism"] == "sharpened"
from saccade import check
{contract}
most = [part for each in ("prefix_causality", "padding", "batch", "lengths", "gradients") for part in ("--skip", each)]
assert "permutation       passed" in said("check", "sharpened(start=2)", *most)
assert "sharpened" in said("bench", "sharpened", "--lengths", "8", "--rounds", "3", "--seconds", "0.01", "--out", "b")
small += ["--data", "rows.csv", "--no-baseline"]
assert "sharpened" in said("compare", "--mechanisms", "sharpened", "--out", "c", *small)
said("train", "recipe.toml", "--out", "run", *small[:-3])
assert "sharpened(start=2)" in Path("run/recipe.toml").read_text()
assert "left out" not in said("evaluate", "run")
assert "did you mean 'sharpened'?" in said("cost", "sharpend", code=2)
print("everywhere")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The example of a plug-in as pip installs it, beside a package whose plug-ins are broken."""
    source, target = tmp_path_factory.mktemp("source") / "plug_in", tmp_path_factory.mktemp("installed")
    shutil.copytree(ROOT / "examples" / "plug_in", source)
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-build-isolation", "--no-deps"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", target, source]
    made = subprocess.run(command, capture_output=True)
    assert made.returncode == 0, made.stderr.decode()
    info = target / "plug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nbad = bad:Mine\nlinear = bad:Mine\n")
    (target / "bad.py").write_text("raise RuntimeError('no')")
    return target


def test_contributing_tells_what_the_example_does():
    told = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    entry = (
        (ROOT / "examples" / "plug_in" / "pyproject.toml").read_text(encoding="utf-8").partition("[project.entry")[2]
    )
    assert "[project.entry" + entry.partition("\n\n")[0] in told
    (code,) = re.findall(r"```python\n(from saccade import check.*?)```", told, re.DOTALL)
    assert "from saccade.attention import to_mechanism" in code
    assert CONTRACT in code


@pytest.mark.parametrize("first", ["import saccade, saccade.nn", "import sharpened, saccade"])
def test_an_installed_package_is_known_everywhere(installed, tmp_path, first):
    """In a process of its own, whichever of the two is imported first."""
    unasked = ["bad", "sharpened"] if first.startswith("import saccade") else ["bad"]
    program = EVERYWHERE.format(first=first, unasked=unasked, contract=CONTRACT)
    if len(unasked) == 1:
        program = program.partition("def said")[0] + "print('everywhere')"
    paths = os.pathsep.join([str(installed), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("everywhere\n")


def test_unknown_names_are_still_unknown():
    with pytest.raises(ValueError, match=r"mechanism must be one of .*, got 'liner' \(did you mean 'linear'\?\)"):
        to_mechanism("liner")

"""The pages in docs/mechanisms are what the code says now."""

import ast
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
from matplotlib import image

from saccade.attention import MECHANISMS, Mechanism, to_mechanism
from saccade.bench import cost
from saccade.bench.pages import __main__ as main
from saccade.bench.pages import page as module
from saccade.bench.pages.__main__ import texts, write_pages
from saccade.bench.pages.examples import MOST, example
from saccade.bench.pages.index import FAMILIES, SMALL, WIDTH, _paper, index
from saccade.bench.pages.page import caption, page
from saccade.bench.pages.passage import LENGTH, RECIPE
from saccade.bench.pages.picture import CELLS
from saccade.claims import Claims
from saccade.data import DataSettings
from saccade.training import TrainingSettings

DOCS = Path(__file__).parents[3] / "docs" / "mechanisms"
LINEAR = MECHANISMS["linear"]


@pytest.mark.parametrize("name", [f"{each}.md" for each in ("README", *MECHANISMS)])
def test_the_page_is_as_it_would_be_made_now(name):
    made = index() if name == "README.md" else page(name.removesuffix(".md"))
    assert (DOCS / name).is_file(), "make docs"
    assert (DOCS / name).read_text(encoding="utf-8") == made, "make docs"


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_picture_is_there_and_small(name):
    path = DOCS / f"{name}.png"
    assert path.is_file(), "make docs"
    assert 4_000 < path.stat().st_size < 80_000
    assert image.imread(path).std() > 0.05


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_small_picture_is_there_and_twice_as_fine_as_it_is_shown(name):
    path = DOCS / SMALL / f"{name}.png"
    assert path.is_file(), "make docs"
    assert path.stat().st_size < 25_000
    assert image.imread(path).shape[:2] == (2 * CELLS + 2, 2 * WIDTH)


def test_there_are_no_pages_of_what_is_gone():
    pictures = {f"{name}.png" for name in MECHANISMS}
    assert {path.name for path in DOCS.iterdir()} == {*texts(), *pictures, SMALL}
    assert {path.name for path in (DOCS / SMALL).iterdir()} == pictures


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_page_tells_every_option_claim_and_length(name):
    told, spec = page(name), MECHANISMS[name]()
    for each in (*fields(spec), *fields(Claims)):
        assert re.search(rf"^\| `{each.name}` \| \S+", told, re.MULTILINE)
    share = cost(name, 4096).computed / cost("full", 4096).computed
    assert f"| {share:.1%} |" in told or f"| {share:.0%} |" in told
    assert ("causal |" in told) == spec.claims.causal
    for wanted in ("## Formula\n\n```text\n", "## When to use it\n\n", "## When to leave it\n\n", "## Source\n\n"):
        assert wanted in told
    assert "|  |" not in told.replace("| promise |  |", "")
    for text in re.findall(r"^encoder = .*  # or (.*)$", told, re.MULTILINE):
        assert to_mechanism(ast.literal_eval(text)) == spec  # the option that is shown has its default


def test_the_index_shows_every_mechanism_in_its_family():
    told = index()
    families = re.split(r"^## ", told, flags=re.MULTILINE)
    glance = re.findall(r"^\| \[`(\w+)`\]\((\w+)\.md\)", told, re.MULTILINE)
    assert sorted(glance) == sorted((name, name) for name in MECHANISMS)
    for name, kind in MECHANISMS.items():
        (family,) = (each for each in families if each.lower().startswith(f"{kind.family}\n"))
        assert f'<a href="{name}.md"><img src="{SMALL}/{name}.png"' in family
        assert f"\n**[{name}]({name}.md)**: " in family
    assert "| [`full`](full.md) | 100% | O(n) | ✓ |  | ✓ |" in told
    assert "O(n² d) time. State: O(n). *Vaswani et al. 2017*" in told
    assert "<code>(Local(48) &amp; Strided(8)) | Global(4)</code>" in told
    assert "State: O(1). *Katharopoulos et al. 2020*" in told


def test_every_family_says_what_unites_it():
    assert {kind.family for kind in MECHANISMS.values() if kind.__module__.startswith("saccade.")} <= set(FAMILIES)


def test_a_family_of_its_own_stands_behind_the_others(monkeypatch):
    class Odd(LINEAR):
        __doc__ = LINEAR.__doc__
        family = "oddities"

    for name in [name for name, kind in MECHANISMS.items() if kind.family == LINEAR.family]:
        monkeypatch.setitem(module.MECHANISMS, name, Odd)
    headings = re.findall(r"^## (.*)$", index(), re.MULTILINE)
    assert headings[-2:] == ["Oddities", "The pictures"]
    assert "Reordered products" not in headings


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ('"A Paper: With (Brackets)" (Roy et al. 2020), and "B" (Tay et al. 2021).', "Roy et al. 2020"),
        ("Roy, Saffar, Vaswani & Grangier 2021 (TACL; arXiv 2003.05997 of 2020), Algorithm 1.", "Roy et al. 2021"),
        ("Vaswani et al. 2017. `dot`: Luong et al. 2015.", "Vaswani et al. 2017"),
        ('"A Paper", Tay, Bahri and Juan 2020\n(arXiv 2002.11296).', "Tay et al. 2020"),
        ("Beltagy and Peters (2020), with 2048 tokens.", "Beltagy and Peters 2020"),
        ("Katharopoulos, 2020.", "Katharopoulos 2020"),
        ("our own. It has no paper.", "our own"),
    ],
)
def test_the_index_names_the_paper(source, shown):
    assert _paper(source) == shown


def as_listed(monkeypatch, kind):
    monkeypatch.setitem(module.MECHANISMS, "linear", kind)
    monkeypatch.setattr(module, "example", lambda name, length: kind())


def test_a_mechanism_that_does_not_say_when_to_leave_it_is_refused(monkeypatch, tmp_path):
    class Silent(LINEAR):
        __doc__ = (LINEAR.__doc__ or "").replace("Leave it:", "Beware:")

    as_listed(monkeypatch, Silent)
    for make in (lambda: page("linear"), index, lambda: write_pages(tmp_path / "pages")):
        with pytest.raises(ValueError, match="docstring of Silent must be one with a section 'Leave it', got 'none'"):
            make()
    assert not (tmp_path / "pages").exists()


def test_what_a_mechanism_cannot_do_is_told(monkeypatch):
    @dataclass(frozen=True, repr=False)
    class Short(LINEAR):
        __doc__ = f"{(LINEAR.__doc__ or '').rstrip()}\n        most: or | what it takes."
        most: int = 4096
        behind = Mechanism.behind

        @property
        def claims(self):
            return replace(LINEAR().claims, causal=False, streaming=False, state_size="", normalised=False)

        def cost(self, n_q, *sizes):
            if n_q > self.most:
                raise ValueError(f"n must be at most {self.most}, got {n_q}")
            return LINEAR().cost(n_q, *sizes)

    as_listed(monkeypatch, Short)
    told = page("linear")
    assert " | 1.6% |\n\nAt 16,384 tokens it refuses: n must be at most 4096, got 16384." in told
    assert "| tokens | operations | next to full |\n" in told
    assert "| `most` | `4096` | or \\| what it takes. |" in told
    assert "| `state_size` | none |" in told
    assert 'mechanism="linear")  # or "linear(feature=\'elu\')"' in told
    assert "`extra_tokens` cannot be put in front of it" in told
    assert "Negative weights, where there are any, are orange." in told
    assert "| [`linear`](linear.md) | 1.6% | - |  |  | ✓ |" in index()
    assert "State: none. *Katharopoulos et al. 2020*" in index()


def test_captions_say_what_has_to_be_known():
    assert "share the weight" in caption(to_mechanism("local(left=2)"))
    assert "`local(left=2)` with the same queries and keys on the right" in caption(to_mechanism("local(left=2)"))
    assert "share the weight" not in caption(to_mechanism("linear"))
    assert "on the right" not in caption(to_mechanism("full"))


@pytest.mark.parametrize("name", MECHANISMS)
def test_every_mechanism_has_an_example(name):
    assert type(example(name, LENGTH)) is MECHANISMS[name]


def test_sizes_are_halved_until_a_quarter_is_left():
    assert str(example("local", 256)) == "local(left=32)"
    assert str(example("local", 4096)) == "local"
    assert cost("local(left=32)", 256).flops <= MOST * cost("full", 256).flops < cost("local(left=64)", 256).flops


def test_all_is_written(tmp_path, capsys, monkeypatch):
    few = {name: MECHANISMS[name] for name in ("full", "linear")}
    monkeypatch.setattr(main, "MECHANISMS", few)
    quick = TrainingSettings(steps=50, batch_size=1)
    write_pages(tmp_path / "pages", replace(RECIPE, data=DataSettings(length=32, per_class=10), training=quick))
    wanted = {"README.md", "full.md", "full.png", "linear.md", "linear.png"}
    assert {path.name for path in (tmp_path / "pages").iterdir()} == {*wanted, SMALL}
    assert {path.name for path in (tmp_path / "pages" / SMALL).iterdir()} == {"full.png", "linear.png"}
    assert "step 50 of 50: loss " in capsys.readouterr().out
    (tmp_path / "pages/linear.md").unlink()
    (tmp_path / "pages/linear.png").write_bytes(b"mine")
    write_pages(tmp_path / "pages", None)
    assert (tmp_path / "pages/linear.md").is_file()
    assert (tmp_path / "pages/linear.png").read_bytes() == b"mine"

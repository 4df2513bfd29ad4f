"""`package.module:name`: what is found, and what the user is told where it is not."""

import sys

import pytest

from saccade.checking import load_target


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    (tmp_path / "leaky_modules.py").write_text(
        "number = 3\n\n\ndef attention(q, k, v):\n    return v\n\n\nclass Model:\n    def forward(self, x): return x\n"
    )
    (tmp_path / "leaky_broken.py").write_text("import no_such_package_at_all\n")
    (tmp_path / "leaky_raises.py").write_text("x = 1\nraise RuntimeError('no GPU')\n")
    (tmp_path / "leaky_exits.py").write_text("import sys\nsys.exit()\n")
    yield tmp_path
    for name in ("leaky_modules", "leaky_broken", "leaky_raises", "leaky_exits"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("folder")
def test_names_in_the_current_folder_are_found():
    assert load_target("leaky_modules:attention").__name__ == "attention"
    assert load_target("leaky_modules:Model.forward").__qualname__ == "Model.forward"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("leaky_modules", ValueError, "target must be package.module:name, got 'leaky_modules'"),
        (":attention", ValueError, "target must be package.module:name"),
        ("leaky_modules:", ValueError, "target must be package.module:name"),
        ("leaky_modules.py:attention", ValueError, "such as leaky_modules:attention"),
        ("models/leaky.py:attention", ValueError, "such as models.leaky:attention"),
        ("leaky_module:attention", ValueError, "No module named 'leaky_module'"),
        ("leaky_modules.inner:attention", ValueError, "'leaky_modules' is not a package"),
        ("leaky_modules:atention", ValueError, "did you mean 'attention'?"),
        ("leaky_modules:number", TypeError, "target must be callable, got 'leaky_modules:number, a int'"),
        ("leaky_broken:attention", ImportError, "No module named 'no_such_package_at_all'"),
        ("leaky_raises:attention", ImportError, "RuntimeError: no GPU"),
        ("leaky_exits:attention", ImportError, "leaky_exits could not be imported: it called sys.exit()"),
    ],
)
def test_what_is_not_found_is_explained(text, error, words):
    with pytest.raises(error) as caught:
        load_target(text)
    assert words in str(caught.value)


def test_an_error_inside_the_users_module_names_its_file_and_line(folder):
    with pytest.raises(ImportError) as caught:
        load_target("leaky_raises:attention")
    assert f"{folder / 'leaky_raises.py'}, line 2" in str(caught.value)

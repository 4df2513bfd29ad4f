import pytest


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "letters.csv"
    lines = [f"{'ab'[i % 2] * (i % 13 + 1)},{'ab'[i % 2]}" for i in range(120)]
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    return path


@pytest.fixture
def recipe(tmp_path, rows):
    path = tmp_path / "letters.toml"
    path.write_text(f'[data]\nsource = "{rows.as_posix()}"\n', encoding="utf-8")
    return path

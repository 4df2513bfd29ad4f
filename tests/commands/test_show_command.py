import pytest
from calls import refused

from saccade.attention import MECHANISMS
from saccade.cli import run


def test_show_lists_the_mechanisms(capsys):
    assert run(["show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(MECHANISMS)
    assert all(len(line.split()) > 2 for line in lines)


def test_show_draws_into_a_file_and_overwrites_only_on_request(capsys, tmp_path):
    path = tmp_path / "a.svg"
    assert run(["show", "Local(2) | Global(1)", "--length", "16", "--out", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n"
    before = path.read_bytes()
    assert before.startswith(b"<?xml")
    assert "already exists" in refused(capsys, "show", "full", "--length", "8", "--out", path)
    assert path.read_bytes() == before
    assert run(["show", "full", "--length", "8", "--overwrite", "--out", str(path)]) == 0
    assert path.read_bytes() != before


def test_show_all_is_the_gallery(capsys, tmp_path):
    assert run(["show", "all", "--length", "16", "--out", str(tmp_path / "a.svg")]) == 0
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {name}" in drawn for name in MECHANISMS)


def test_show_options_reach_the_picture(capsys):
    assert run(["show", "local(left=1)", "strided(stride=4)", "--length", "12", "--causal", "--heads", "2"]) == 0
    out = capsys.readouterr().out
    assert "local(left=1), causal" in out
    assert "strided(stride=4), causal" in out
    assert out.count("head 1: ") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bigbird"], "did you mean 'big_bird'"),
        (["local(lft=3)"], "did you mean 'left'"),
        (["local(left=-1)"], "must be"),
        (["local("], "must be an expression"),
        (["full", "--length", "0"], "length must be from 1 to 8,192, got 0"),
        (["full", "--heads", "0"], "heads must be at least 1, got 0"),
        (["full", "--out", "a.gif"], "must be a file that ends in .png or .svg"),
        (["full", "--out", "no/such/folder/a.png"], "must be an existing folder"),
    ],
)
def test_show_refuses(capsys, arguments, message):
    assert message in refused(capsys, "show", *arguments)


def test_show_positions(capsys, tmp_path):
    assert run(["show", "positions", "rotary", "alibi", "--length", "16"]) == 0
    printed = capsys.readouterr().out
    assert "rotary: turns q and k" in printed
    assert "alibi: " in printed
    path = tmp_path / "p.png"
    assert run(["show", "positions", "alibi", "--out", str(path)]) == 0
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert capsys.readouterr().out == f"wrote {path}\n"
    assert "already exists" in refused(capsys, "show", "positions", "--out", path)
    assert "did you mean 'rotary'" in refused(capsys, "show", "positions", "rotari")
    assert "--causal is not for positions" in refused(capsys, "show", "positions", "--causal")
    assert "length must be from 2 to 4,096, got 1" in refused(capsys, "show", "positions", "--length", "1")

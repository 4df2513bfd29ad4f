from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.config import build, dump, load, read


@dataclass(frozen=True)
class Inner:
    width: int = 128
    rate: float = 0.5
    name: str = "full"
    deep: bool = False
    limit: int | None = None
    cap: int | None = 7
    norm: Literal["pre", "post"] = "pre"
    parts: str | tuple[str, ...] = "full"
    pair: tuple[int, float] = (1, 2.0)
    folder: Path = Path("a")

    def __post_init__(self):
        if self.width <= 0:
            raise ValueError(f"width must be positive, got {self.width}")
        if self.width == 13:
            raise ValueError("the whole is unlucky")


@dataclass(frozen=True)
class Outer:
    seed: int = 0
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True)
class Demanding:
    steps: int


def write(folder, text):
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_fills_nested_fields_and_leaves_the_rest_at_their_defaults(tmp_path):
    path = write(tmp_path, 'seed = 3\n[inner]\nrate = 2\nparts = ["a", "b"]\npair = [4, 5]\nfolder = "x/y"\n')
    loaded = load(path, Outer)
    assert loaded == Outer(3, Inner(rate=2.0, parts=("a", "b"), pair=(4, 5.0), folder=Path("x/y")))
    assert isinstance(loaded.inner.rate, float)
    assert isinstance(loaded.inner.pair[1], float)
    assert load(None, Outer) == Outer()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("inner.width=64", Inner(width=64)),
        ("inner.rate=1e-3", Inner(rate=1e-3)),
        ("inner.deep=true", Inner(deep=True)),
        ("inner.name=local(left=64)", Inner(name="local(left=64)")),
        ('inner.name="quoted"', Inner(name="quoted")),
        ("inner.name=", Inner(name="")),
        ("inner.name=1\nseed = 5", Inner(name="1\nseed = 5")),
        ('inner.parts=["a", "b"]', Inner(parts=("a", "b"))),
        ("inner = {width = 5, rate = 6}", Inner(width=5, rate=6.0)),
        ("inner.cap=none", Inner(cap=None)),
    ],
)
def test_set_reads_toml_and_falls_back_to_plain_text(override, expected):
    assert load(None, Outer, [override]).inner == expected


def test_the_last_override_wins_over_the_file(tmp_path):
    path = write(tmp_path, "[inner]\nwidth = 2\ndeep = true\n")
    assert load(path, Outer, ["inner.width=3", "inner.width=5"]).inner == Inner(width=5, deep=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[inner]\n\nwidht = 3",
            "line 3: key must be one of .*got 'inner.widht' \\(did you mean 'inner.width'",
        ),
        ("iner = 3", "line 1: key must be one of inner, seed, got 'iner' \\(did you mean 'inner'"),
        ("seed = 1.5", "line 1: seed must be a whole number, got 1.5"),
        ("seed = true", "line 1: seed must be a whole number, got True"),
        ("[inner]\nrate = 'x'", "line 2: inner.rate must be a number, got 'x'"),
        ("[inner]\nrate = false", "line 2: inner.rate must be a number, got False"),
        ("[inner]\ndeep = 1", "line 2: inner.deep must be true or false, got 1"),
        ("[inner]\nname = 1", "line 2: inner.name must be text, got 1"),
        (
            "[inner]\nnorm = 'per'",
            "line 2: inner.norm must be one of post, pre, got 'per' \\(did you mean 'pre'",
        ),
        ("[inner]\nlimit = 'x'", "line 2: inner.limit must be a whole number, got 'x'"),
        ("[inner]\nparts = 3", "line 2: inner.parts must be text or a list, each item text, got 3"),
        ("[inner]\npair = [1, 'x']", r"line 2: inner.pair\[1\] must be a number, got 'x'"),
        ("[inner]\npair = [1]", r"inner.pair must be a list of 2: a whole number, a number, got \[1\]"),
        ("inner = 3", "line 1: inner must be a table, got 3"),
        ("[inner]\ndeep = true\nwidth = -1", "line 3: inner.width must be positive, got -1"),
        ("[inner]\nwidth = 13", "line 1: inner: the whole is unlucky"),
    ],
)
def test_an_error_names_the_key_the_value_what_is_allowed_and_the_line(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        load(path, Outer)
    assert str(caught.value).startswith(str(path))


def test_an_error_in_an_override_names_the_override(tmp_path):
    path = write(tmp_path, "[inner]\nwidth = 3\n")
    with pytest.raises(ValueError, match=r"^--set inner.width=x: inner.width must be a whole number, got 'x'"):
        load(path, Outer, ["inner.width=x"])
    with pytest.raises(ValueError, match=r"^--set inner.width.y=3: inner.width must be a whole number"):
        load(path, Outer, ["inner.width.y=3"])


@pytest.mark.parametrize("text", ["seed", "=3", "a..b=3", ".a=3"])
def test_a_malformed_override_is_refused(text):
    with pytest.raises(ValueError, match=r"--set must be of the form a\.b=value, got"):
        load(None, Outer, [text])


def test_a_missing_field_is_asked_for():
    with pytest.raises(ValueError, match="settings: steps must be given"):
        load(None, Demanding)
    assert load(None, Demanding, ["steps=3"]) == Demanding(3)


def test_bad_toml_names_file_and_line(tmp_path):
    path = write(tmp_path, "seed = 1\nseed 3\n")
    with pytest.raises(ValueError, match=r"run\.toml must be valid TOML: .*line 2"):
        load(path, Outer)
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(ValueError, match="not UTF-8 at byte 8"):
        load(path, Outer)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="settings must be an existing TOML file"):
        load(tmp_path / "none.toml", Outer)
    with pytest.raises(FileNotFoundError, match="settings must be an existing TOML file"):
        load(tmp_path, Outer)


def test_what_is_read_can_be_looked_at_before_it_is_built(tmp_path):
    source = read(write(tmp_path, "seed = 2\n"), ["inner.width=3"])
    assert source.values == {"seed": 2, "inner": {"width": 3}}
    assert build(source, Outer) == Outer(2, Inner(width=3))


text = st.text(st.characters(exclude_categories=["Cs"])) | st.just("none")
inner = st.builds(
    Inner,
    width=st.integers(14),
    rate=st.floats(allow_nan=False),
    name=text,
    deep=st.booleans(),
    limit=st.none() | st.integers(),
    cap=st.none() | st.integers(),
    norm=st.sampled_from(["pre", "post"]),
    parts=text | st.lists(text).map(tuple),
    pair=st.tuples(st.integers(), st.floats(allow_nan=False)),
    folder=text.map(lambda t: Path("p" + t)),
)


@given(settings=st.builds(Outer, seed=st.integers(), inner=inner))
def test_dump_reads_back_equal(tmp_path_factory, settings):
    path = tmp_path_factory.mktemp("dump") / "run.toml"
    path.write_bytes(dump(settings).encode())
    assert load(path, Outer) == settings


def test_the_text_none_cannot_be_written_where_it_stands_for_no_value():
    @dataclass(frozen=True)
    class Named:
        name: str | None = None

    with pytest.raises(ValueError, match="name must be another text"):
        dump(Named("none"))


def test_a_value_without_a_toml_form_is_refused():
    @dataclass(frozen=True)
    class Odd:
        value: object

    with pytest.raises(TypeError, match="value must be a number, text, a list, a table or none"):
        dump(Odd(3j))


def test_only_dataclasses_describe_settings():
    with pytest.raises(TypeError, match="settings must be a dataclass"):
        dump({"a": 1})
    with pytest.raises(TypeError, match="settings must be a dataclass"):
        load(None, dict)

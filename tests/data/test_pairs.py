import gzip

import pytest

from saccade.data.pairs import read_pairs


def write(folder, **files) -> None:
    for name, text in files.items():
        data = text if isinstance(text, bytes) else text.encode()
        (folder / name.replace("_", ".")).write_bytes(gzip.compress(data) if name.endswith("gz") else data)


def test_aligned_files_are_read_side_by_side(tmp_path):
    write(tmp_path, a_en="one\r\ntwo \u2028 2\n\n", a_de="eins\nzwei\n\n", a_fr="un\ndeux\n\n")
    pairs = list(read_pairs(str(tmp_path / "a.{}"), "en", ("de", "fr")))
    assert [(pair.source, pair.target, pair.side) for pair in pairs] == [
        ("one", "eins", "de"),
        ("one", "un", "fr"),
        ("two \u2028 2", "zwei", "de"),
        ("two \u2028 2", "deux", "fr"),
        ("", "", "de"),
        ("", "", "fr"),
    ]
    assert pairs[3].where == f"{tmp_path}/a.fr, line 2"


@pytest.mark.parametrize("name", ["a_tsv", "a_tsv_gz"])
def test_a_table_has_its_sides_in_columns(tmp_path, name):
    write(tmp_path, **{name: 'id\tword\tphones\n1\t"a\tB C\n\n2\tb\tD\n'})
    pairs = list(read_pairs(str(tmp_path / name.replace("_", ".")), "word", ("phones",)))
    assert [(pair.source, pair.target, pair.side) for pair in pairs] == [('"a', "B C", "phones"), ("b", "D", "phones")]
    assert pairs[1].where.endswith("line 4")


def test_json_lines_too(tmp_path):
    write(tmp_path, a_jsonl='{"x": "a", "y": "b", "z": "c"}\n')
    pairs = read_pairs(str(tmp_path / "a.jsonl"), "x", ("y", "z"))
    assert [(pair.target, pair.side) for pair in pairs] == [("b", "y"), ("c", "z")]


@pytest.mark.parametrize("end", ["", "_gz"])
def test_files_that_are_not_aligned_are_refused_where_one_ends(tmp_path, end):
    write(tmp_path, **{f"a_en{end}": "1\n2\n3\n4\n", f"a_de{end}": "1\n2\n"})
    reading = read_pairs(str(tmp_path / f"a.{{}}{end.replace('_', '.')}"), "en", ("de",))
    assert [next(reading).source for _ in range(2)] == ["1", "2"]
    message = r"a\.de.*, line 3: the file must be 4 lines long like .*a\.en.*, got 2"
    with pytest.raises(ValueError, match=message):
        next(reading)


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        (
            {"a_en": "1\n", "a_de": b"\xff\n"},
            "a.{}",
            r"a\.de, line 1: the file must be UTF-8, got byte 0xff at offset 0",
        ),
        (
            {"a_tsv": "en\tde\n1\t2\n1\t2\t3\n"},
            "a.tsv",
            r"a\.tsv, line 3: the row must be 2 columns wide like the header",
        ),
        ({"a_tsv": "en\tfr\n"}, "a.tsv", r"a\.tsv, line 1: write must be one of en, fr, got 'de'"),
        ({"a_tsv": "e\tde\n"}, "a.tsv", r"a\.tsv, line 1: read must be one of de, e, got 'en'"),
        ({"a_tsv": "en\tde\tde\n"}, "a.tsv", r"line 1: write must be a column that is there once, got 'de'"),
        ({"a_jsonl": '{"en": "a", "de": 3}\n'}, "a.jsonl", r"a\.jsonl, line 1: de must be a text, got 3"),
        ({"a_jsonl": '{"en": "a", "de": "b\\ud800"}\n'}, "a.jsonl", r"line 1: de must be made of characters, got 'b"),
        ({"a_txt": ""}, "a.txt", r"data file must be a name that ends in \.jsonl, \.json, \.csv, \.tsv"),
    ],
)
def test_what_makes_no_pairs_is_refused_with_its_line(tmp_path, files, source, message):
    write(tmp_path, **files)
    with pytest.raises(ValueError, match=message):
        list(read_pairs(str(tmp_path / source), "en", ("de",)))


def test_a_missing_language_is_refused(tmp_path):
    write(tmp_path, a_en="1\n")
    with pytest.raises(FileNotFoundError, match=r"a\.de must be a file that can be read: No such file"):
        list(read_pairs(str(tmp_path / "a.{}"), "en", ("de",)))

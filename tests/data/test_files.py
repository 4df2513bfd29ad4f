import csv
import gzip
import json
import re
from pathlib import Path

import pytest

from saccade.data.files import is_file_name, read_rows
from saccade.data.rows import Columns, Row

COLUMNS = Columns("text", "label")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """Messages then name files as a user writes them."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(name: str, content: bytes | str | None = None, columns: Columns = COLUMNS) -> list[Row]:
    if content is not None:
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return read_rows(name, columns)


def refused(message: str, name: str, content: bytes | str | None = None, kind: type[Exception] = ValueError) -> None:
    """Reading must fail with exactly this message, or with one that begins so if it ends in an ellipsis."""
    with pytest.raises(kind) as error:
        read(name, content)
    if message.endswith("..."):
        assert str(error.value).startswith(message[:-3])
    else:
        assert str(error.value) == message


JSONL = '{"text": "né", "label": "a", "id": 3}\n\n  \n{"label": 7, "text": "x\\ny"}\r\n{"text": " ", "label": " b c "}'
CSV = 'id,text,label\r\n3,né,a\r\n\r\n4,"x\ny ""q"", z",7\r\n5, , b c \r\n'
TSV = 'id\ttext\tlabel\n3\tné\ta\n\n4\t"x, y\t7\r\n5\t \t b c '


@pytest.mark.parametrize(
    ("name", "content", "texts", "lines"),
    [
        ("a.jsonl", JSONL, ["né", "x\ny", " "], [1, 4, 5]),
        ("a.json", JSONL, ["né", "x\ny", " "], [1, 4, 5]),
        ("a.csv", CSV, ["né", 'x\ny "q", z', " "], [2, 4, 6]),
        ("a.TSV", TSV, ["né", '"x, y', " "], [2, 4, 5]),
    ],
)
@pytest.mark.parametrize("mark", ["", "\N{BOM}"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_is_read(here, name, content, texts, lines, mark, packed):
    data = (mark + content).encode()
    name += ".gz" if packed else ""
    rows = read(name, gzip.compress(data) if packed else data)
    assert [row.text.decode() for row in rows] == texts
    assert [row.label for row in rows] == ["a", "7", "b c"]
    assert [row.where for row in rows] == [f"{name}, line {line}" for line in lines]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
def test_the_columns_may_have_other_names(here, name):
    lines = {"a.jsonl": '{"body": "x", "star": 5}', "a.csv": "star,body\n5,x", "a.tsv": "star\tbody\n5\tx"}
    assert read(name, lines[name], Columns("body", "star")) == [Row(b"x", "5", f"{name}, line {2 - ('j' in name)}")]


def test_long_fields_are_read_and_the_limit_of_others_is_left_alone(here):
    before = csv.field_size_limit(1009)
    try:
        (row,) = read("a.csv", "text,label\n" + "x" * 300_007 + ",a\n")
        assert len(row.text) == 300_007
        assert csv.field_size_limit() == 1009
    finally:
        csv.field_size_limit(before)


def test_the_home_folder_may_be_written_short(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("USERPROFILE", str(here))
    (here / "a.csv").write_text("text,label\nx,a")
    assert len(read("~/a.csv")) == 1


def test_names_that_can_be_read():
    assert all(map(is_file_name, ["a.jsonl", "b/a.JSON", "a.csv.gz", "x.tsv.GZ"]))
    assert not any(map(is_file_name, ["a.txt", "a", "a.gz", "csv", "a.csv.zip", ""]))


def test_an_unknown_ending_lists_those_that_are_known(here):
    refused(
        "data file must be a name that ends in .jsonl, .json, .csv, .tsv (or these with .gz), got 'a.parquet'",
        "a.parquet",
        "x",
    )


def test_a_missing_file_is_named(here):
    refused("a.csv must be a file that can be read: No such file or directory", "a.csv", kind=FileNotFoundError)
    refused("a.csv.gz must be a file that can be read: No such file or directory", "a.csv.gz", kind=FileNotFoundError)


def test_a_folder_is_no_file(here):
    (here / "a.jsonl").mkdir()
    refused("a.jsonl must be a file that can be read: ...", "a.jsonl", kind=OSError)


def test_a_file_that_may_not_be_read_is_named(here, monkeypatch):
    def locked(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", locked)
    refused("a.csv must be a file that can be read: Permission denied", "a.csv", kind=PermissionError)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
@pytest.mark.parametrize("content", ["", "\n\r\n\n"])
def test_an_empty_file_has_no_rows(here, name, content):
    refused(f"{name} must be a file with rows in it, got 'none'", name, content)


@pytest.mark.parametrize(("name", "header"), [("a.csv", "text,label\n"), ("a.tsv", "text\tlabel")])
def test_a_header_alone_is_no_row(here, name, header):
    refused(f"{name} must be a file with rows in it, got 'none'", name, header)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_bad_utf8_is_found_by_line_and_byte(here, mark):
    begin = mark + b"text,label\nx,a\n"
    offset = len(begin) + 3
    message = f"line 3: the file must be UTF-8, got byte 0xff at offset {offset} of the file"
    refused(f"a.csv, {message}", "a.csv", begin + "né".encode() + b"\xff,a\n")
    first = f"a.jsonl, line 1: the file must be UTF-8, got byte 0xe9 at offset {len(mark) + 2} of the file"
    refused(first, "a.jsonl", mark + b'{"\xe9"')


def test_utf16_is_not_utf8(here):
    refused(
        "a.tsv, line 1: the file must be UTF-8, got byte 0xff at offset 0 of the file",
        "a.tsv",
        "text\tlabel\nx\ta".encode("utf-16-le").join([b"\xff\xfe", b""]),
    )


def test_a_file_that_is_not_packed_or_not_whole_is_no_gzip(here):
    whole = gzip.compress(b"text,label\n" + b"x,a\n" * 1000)
    refused("a.csv.gz must be a whole gzip file: Not a gzipped file...", "a.csv.gz", "text,label\nx,a\n")
    refused("a.csv.gz must be a whole gzip file: Compressed file ended...", "a.csv.gz", whole[:-9])
    refused("a.csv.gz must be a whole gzip file: ...", "a.csv.gz", whole[:15] + b"\xff" * 9 + whole[24:])


GOOD = '{"text": "x", "label": "a"}\n'


def test_bad_json_is_found_by_line_and_column(here):
    refused("a.jsonl, line 2: the line must be JSON: Expecting value at column 10", "a.jsonl", GOOD + '{"text": x}')
    refused("a.jsonl, line 3: the line must be JSON: ...", "a.jsonl", GOOD + "\n" + GOOD[:-3])


@pytest.mark.parametrize("line", ["[" * 100_000, '{"text": "x", "label": 1' + "0" * 5000 + "}"])
def test_json_that_python_cannot_hold_is_found_by_line(here, line):
    refused("a.jsonl, line 2: the line must be JSON that Python can hold: ...", "a.jsonl", GOOD + line)


@pytest.mark.parametrize(("line", "got"), [("[1, 2]", "list"), ('"x"', "str"), ("null", "NoneType"), ("3", "int")])
def test_a_line_that_is_no_object_is_refused(here, line, got):
    refused(f"a.jsonl, line 2: the line must be one JSON object, got '{got}'", "a.jsonl", GOOD + line)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.jsonl", GOOD + '{"texts": "x", "label": "a"}', 2),
        ("a.csv", "\ntexts,label\nx,a", 2),
        ("a.tsv", "texts\tlabel\nx\ta", 1),
    ],
)
def test_a_missing_column_lists_those_that_are_there(here, name, content, line):
    expected = "text_column must be one of label, texts, got 'text' (did you mean 'texts'?)"
    refused(f"{name}, line {line}: {expected}", name, content)


def test_a_missing_label_column_is_named_too(here):
    refused("a.csv, line 1: label_column must be one of class, text, got 'label'...", "a.csv", "text,class\nx,a")


def test_a_column_that_is_there_twice_is_refused(here):
    refused("a.csv, line 1: text_column must be a column that is there once, got 'text'", "a.csv", "text,label,text\n")


@pytest.mark.parametrize(("value", "got"), [("", "''"), (None, "None"), (3, "3"), (["x"], "['x']"), (True, "True")])
def test_a_text_is_a_string_with_something_in_it(here, value, got):
    line = json.dumps({"label": "a", "text": value})
    expected = f"a.jsonl, line 2: text must be a string that is not empty, got {got}"
    refused(expected, "a.jsonl", GOOD + line)


def test_a_long_value_is_not_written_out(here):
    line = json.dumps({"label": "a", "text": ["word"] * 1000})
    with pytest.raises(ValueError, match=re.escape("['word', 'word', ")) as error:
        read("a.jsonl", line)
    assert len(str(error.value)) < 200


def test_half_a_surrogate_pair_is_no_text(here):
    refused(
        r"a.jsonl, line 1: text must be made of characters, got '\ud83d'",
        "a.jsonl",
        r'{"text": "x \ud83d", "label": "a"}',
    )


@pytest.mark.parametrize("value", ["", " \t", None, 1.5, True, ["a"]])
def test_a_label_is_a_name_or_a_whole_number(here, value):
    expected = f"a.jsonl, line 2: label must be a whole number or a string that is not empty, got {value!r}"
    refused(expected, "a.jsonl", GOOD + json.dumps({"text": "x", "label": value}))


def test_errors_behind_a_quoted_new_line_name_the_line_where_the_row_begins(here):
    begin = 'text,label\n"a\nb\n\nc",x\n'
    refused("a.csv, line 6: label must be a whole number or a string that is not empty, got ''", "a.csv", begin + "q,")
    refused("a.csv, line 6: the row must be 2 columns wide like the header, got 3", "a.csv", begin + '"q\nr",x,y')
    refused("a.csv, line 6: the row must be CSV: unexpected end of data", "a.csv", begin + 'q,"never closed\nx,y\n')
    refused("a.csv, line 7: the row must be CSV: ...", "a.csv", begin + 'q,x\n"r"s,x\n')


def test_a_row_of_another_width_is_refused(here):
    refused("a.tsv, line 3: the row must be 2 columns wide like the header, got 1", "a.tsv", "text\tlabel\nx\ta\ny\n")

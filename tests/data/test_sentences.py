import gzip
import sys

import pytest

from saccade.data.sentences import entity_faults, read_sentences


def row(i, form, upos="NOUN", xpos="NN") -> str:
    return "\t".join([str(i), form, "_", upos, xpos, "_", "0", "root", "_", "_"])


TREES = "\n".join(
    [
        "# newdoc id = a",
        "# text = I don't _",
        row(1, "I", "PRON", "PRP"),
        row("2-3", "don't", "_", "_"),
        row(2, "do", "AUX", "VBP"),
        row(3, "n't", "PART", "RB"),
        row("3.1", "know", "VERB", "VB"),
        row(4, "_", "SYM", "NFP"),
        "",
        "",
        "# text = 1 000",
        row(1, "1 000", "NUM", "CD"),
        "",
        "# a comment without a sentence",
    ]
)


def write(path, text) -> str:
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


@pytest.mark.parametrize("name", ["a.conllu", "a.conllu.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_conllu_passes_over_multiword_tokens_and_empty_nodes(tmp_path, name, end):
    path = write(tmp_path / name, TREES.replace("\n", end))
    first, second = read_sentences(path)
    assert first.words == ("I", "do", "n't", "_")
    assert first.tags == ("PRON", "AUX", "PART", "SYM")
    assert first.where == f"{path}, line 1"
    assert second.words == ("1 000",)
    assert second.where == f"{path}, line 11"
    assert next(read_sentences(path, "xpos")).tags == ("PRP", "VBP", "RB", "NFP")


@pytest.mark.parametrize("ending", ["conll", "bio", "iob", "tsv"])
def test_columns_have_the_word_first_and_the_tag_last(tmp_path, ending):
    path = write(tmp_path / f"a.{ending}", "\nAl\tNNP\tB-PER\n#\t.\tO\n \n\nKaïs\tNNP\tB-PER")
    first, second = read_sentences(path)
    assert (first.words, first.tags, first.where) == (("Al", "#"), ("B-PER", "O"), f"{path}, line 2")
    assert (second.words, second.tags, second.where) == (("Kaïs",), ("B-PER",), f"{path}, line 6")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.conll", "a\tO\nb O\n", r"a\.conll, line 2: the line must be 2 columns with a tab between, .*, got 'b O'"),
        ("a.conll", "a\tx\tO\n\nb\tO\n", r"line 3: the line must be 3 columns with a tab between"),
        ("a.conll", "a\t \n", r"line 1: the line must be 2 columns with a tab between, the word first and the tag la"),
        ("a.conll", "\tO\n", r"line 1: the line must be 2 columns"),
        ("a.conll", "word\n", r"line 1: the line must be 2 columns"),
        ("a.conll", b"a\tO\n\xe9\tO\n", r"line 2: the file must be UTF-8, got byte 0xe9 at offset 4"),
        ("a.conllu", "# x\n1\ta\n", r"a\.conllu, line 2: the line must be 10 columns with a tab between, got 2"),
        ("a.conllu", row(1, "a") + "\n" + row("x", "b"), r"line 2: the line must be CoNLL-U: .*'x' is not a valid ID"),
        ("a.conllu", row(1, "a") + "\n" + row(3, "b"), r"line 2: the number of the word must be 2, got 3"),
        ("a.conllu", row(1, "a", "_"), r"line 1: upos must be a tag, got '_'"),
        ("a.txt", "a\tO\n", r"tagged file must be a name that ends in \.conllu, .* \(or with \.gz\), got '.*a\.txt'"),
    ],
)
def test_what_is_no_tagged_sentence_is_refused_with_its_line(tmp_path, name, text, message):
    path = write(tmp_path / name, text)
    with pytest.raises(ValueError, match=message):
        list(read_sentences(path))


def test_a_missing_file_is_refused():
    with pytest.raises(FileNotFoundError, match=r"no\.conll must be a file that can be read: No such file"):
        list(read_sentences("no.conll"))


def test_conllu_says_which_library_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "conllu", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"CoNLL-U needs the library `conllu`: pip install 'saccade\[train\]'"
    ):
        list(read_sentences(write(tmp_path / "a.conllu", TREES)))


def test_sentences_are_read_one_by_one(tmp_path):
    path = write(tmp_path / "a.conll", "a\tO\n\n" * 3 + "wrong\n")
    reading = read_sentences(path)
    assert [next(reading).words for _ in range(3)] == [("a",)] * 3
    with pytest.raises(ValueError, match="line 7"):
        next(reading)


@pytest.mark.parametrize(
    ("tags", "faults"),
    [
        ("O B-x I-x I-x O B-y I-y", []),
        ("I-x O", [0]),
        ("O I-x I-x", [1]),
        ("B-x I-y I-y", [1]),
        ("B-x B-x I-x O I-x", [4]),
        ("NOUN I-x", []),
        ("NOUN VERB", []),
    ],
)
def test_an_entity_is_continued_only_where_it_began(tags, faults):
    assert entity_faults(tuple(tags.split())) == faults

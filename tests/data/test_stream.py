import gzip

import pytest
import torch

from saccade.data.stream import StreamSettings, load_stream, load_streams
from saccade.data.tokenizer import BOS, EOS, UNK
from saccade.data.tokenizer_training import TokenizerSettings

CHARACTERS, WORDS = TokenizerSettings("characters"), TokenizerSettings("words", min_count=2)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train.txt").write_text("ab\nb\r\n\na é", encoding="utf-8", newline="")
    (tmp_path / "validation.txt").write_bytes(gzip.compress(b"abba\n"))
    (tmp_path / "validation.txt").rename(tmp_path / "validation.txt.gz")
    (tmp_path / "test.txt").write_text("bz\n", encoding="utf-8")
    return tmp_path


def settings(folder, **options) -> StreamSettings:
    files = {"source": "train.txt", "validation": "validation.txt.gz", "test": "test.txt"}
    return StreamSettings(**{name: str(folder / file) for name, file in files.items()} | options)


@pytest.mark.parametrize("kind", ["bytes", "characters", "bpe"])
def test_a_stream_is_its_text_behind_a_begin(folder, kind):
    data = load_streams(settings(folder, tokenizer=TokenizerSettings(kind)))
    assert {int(split.tokens[0]) for split in data.splits.values()} == {BOS}
    assert data.tokenizer.decode(data.train.tokens) == "ab\nb\r\n\na é"
    assert data.tokenizer.decode(data.validation.tokens) == "abba\n"
    assert (data.train.bytes, data.train.characters, data.train.documents) == (11, 10, 1)
    assert data.train.tokens.dtype == torch.int16


def test_the_vocabulary_is_learned_from_the_training_text_alone(folder):
    data = load_streams(settings(folder, tokenizer=CHARACTERS))
    assert data.test.tokens[2] == UNK
    assert data.test.unknown == 1 / 4
    assert data.facts["unknown"] == "train 0.00%, validation 0.00%, test 25.00%"
    assert data.facts["tokens"] == "train 10, validation 5, test 3"


def test_words_that_are_rare_are_unknown_and_lines_have_ends(folder):
    (folder / "train.txt").write_text(" = A = \n the the \n A cat\n")
    data = load_streams(settings(folder, tokenizer=WORDS))
    assert data.tokenizer.decode(data.train.tokens) == "= A = \n the the \n A <unk> \n"


def test_a_tokenizer_of_an_earlier_run_learns_nothing(folder):
    first = load_streams(settings(folder, tokenizer=CHARACTERS))
    (folder / "train.txt").write_text("xyz abz")
    again = load_streams(settings(folder, tokenizer=CHARACTERS), first.tokenizer)
    assert again.tokenizer is first.tokenizer
    assert torch.equal(again.test.tokens, first.test.tokens)
    assert torch.equal(load_stream(str(folder / "test.txt"), first.tokenizer).tokens, first.test.tokens)


def test_documents_begin_where_a_line_matches(folder):
    (folder / "train.txt").write_text(" \n# One\na\n## b\n# Two\nc\n")
    train = load_streams(settings(folder, document="# ")).train
    ends = (train.tokens == EOS).nonzero().flatten().tolist()
    assert train.documents == len(ends) == 2
    text = [chr(i - 6) if i > 5 else "|" for i in train.tokens.tolist()]
    assert "".join(text) == "| \n# One\na\n## b\n|# Two\nc\n|"
    assert train.bytes == 23


def test_each_of_several_files_is_a_document_in_the_order_of_their_names(folder):
    for name, text in {"b": "two", "a": "one", "c": ""}.items():
        (folder / f"{name}.text").write_text(text)
    train = load_streams(settings(folder, source=str(folder / "*.text"))).train
    assert "".join(chr(i - 6) if i > 5 else "|" for i in train.tokens.tolist()) == "|one|two|"
    assert train.documents == 2


def test_the_end_of_the_source_is_held_out_line_by_line(folder):
    (folder / "train.txt").write_text("".join(f"{i:02d}\n" for i in range(100)))
    given = {"validation": None, "test": None}
    data = load_streams(settings(folder, **given))
    texts = {name: data.tokenizer.decode(split.tokens) for name, split in data.splits.items()}
    assert "".join(texts.values()) == "".join(f"{i:02d}\n" for i in range(100))
    assert [texts[name][:3] for name in texts] == ["00\n", "80\n", "90\n"]
    data = load_streams(settings(folder, test=None))
    assert data.tokenizer.decode(data.test.tokens)[:3] == "90\n"
    assert data.tokenizer.decode(data.train.tokens)[-3:] == "89\n"
    assert data.tokenizer.decode(data.validation.tokens) == "abba\n"


def test_what_is_held_out_is_not_learned_from(folder):
    (folder / "train.txt").write_text("ab\n" * 9 + "xy\n")
    data = load_streams(settings(folder, test=None, tokenizer=CHARACTERS))
    assert data.tokenizer.decode(data.test.tokens) == "<unk><unk>\n"


def test_a_text_that_is_no_utf8_is_refused_with_its_line(folder):
    (folder / "test.txt").write_bytes(b"ab\nb\xe9\n")
    with pytest.raises(ValueError, match=r"test\.txt, line 2: the file must be UTF-8, got byte 0xe9 at offset 4"):
        load_streams(settings(folder))


def test_an_empty_text_is_refused(folder):
    (folder / "test.txt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"test\.txt must be a file with text in it to make the part test, got 'none'"):
        load_streams(settings(folder))
    (folder / "train.txt").write_bytes(b"one line")
    with pytest.raises(ValueError, match=r"train\.txt must be a file with text in it to make the part validation"):
        load_streams(settings(folder, validation=None))
    (folder / "train.txt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"train\.txt must be a file with text in it to make the part train"):
        load_streams(settings(folder, tokenizer=WORDS))


def test_a_missing_file_is_refused(folder):
    with pytest.raises(FileNotFoundError, match=r"no\.txt must be a file that can be read: No such file"):
        load_streams(settings(folder, test=str(folder / "no.txt")))
    with pytest.raises(FileNotFoundError, match="source must be the name of a file, or a pattern that some file fits"):
        load_streams(settings(folder, source=str(folder / "*.none")))


def test_a_bad_pattern_is_refused():
    with pytest.raises(ValueError, match=r"document must be a regular expression, got '\(': missing"):
        StreamSettings("a.txt", document="(")


def test_an_empty_text_that_is_scored_alone_is_refused(folder):
    tokenizer = load_streams(settings(folder, tokenizer=CHARACTERS)).tokenizer
    (folder / "empty.txt").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"empty\.txt must be a file with text in it, got 'none'"):
        load_stream(str(folder / "empty.txt"), tokenizer)

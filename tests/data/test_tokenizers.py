import json
import random

import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.data.tokenizer import BLANK, BOS, EOS, MASK, PAD, SPECIALS, UNK, Tokenizer
from saccade.data.tokenizer_training import TokenizerSettings, byte_tokens, make_tokenizer, make_units

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "Ein Hund, der läuft.", "日本 the"]


def made(kind, texts=TEXTS, tags=(), whole=True, **options) -> Tokenizer:
    size = options.pop("size", 300 if kind == "bpe" else 8000)
    return make_tokenizer(TokenizerSettings(kind, size=size, **options), texts, tags, whole)


ALL = ["bytes", "characters", "words", "bpe"]
BYTES, BPE, PIECES = made("bytes"), made("bpe"), made("bpe", whole=False)


@pytest.mark.parametrize("kind", ALL)
def test_the_special_tokens_are_six_and_the_first(kind):
    tokenizer = made(kind)
    assert [tokenizer.token(i) for i in range(6)] == ["<pad>", "<bos>", "<eos>", "<unk>", "<mask>", "<blank>"]
    assert (PAD, BOS, EOS, UNK, MASK, BLANK) == (0, 1, 2, 3, 4, 5)
    assert len({tokenizer.token(i) for i in range(tokenizer.size)}) == tokenizer.size
    assert tokenizer.token(tokenizer.size) is None


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("text", ["<pad> <bos><eos> the <mask>", "<blank>", " ".join(SPECIALS), "<2de> the"])
def test_no_text_yields_a_special_token_but_unk(kind, text):
    # A vocabulary that was made from such texts has no second token of the same name.
    tokenizer = made(kind, [*TEXTS, text, text], tags=["<2de>"])
    assert not set(tokenizer.encode(text).tolist()) & {PAD, BOS, EOS, MASK, BLANK, tokenizer.tag("<2de>")}
    assert len({tokenizer.token(i) for i in range(tokenizer.size)}) == tokenizer.size


@given(st.text())
def test_bytes_are_the_utf8_behind_the_special_tokens(text):
    ids = BYTES.encode(text)
    assert [i - 6 for i in ids.tolist()] == list(text.encode())
    assert BYTES.decode(ids) == text


@given(st.text())
def test_byte_pairs_give_every_text_back_without_unk(text):
    for tokenizer in (BPE, PIECES):
        ids = tokenizer.encode(text)
        assert UNK not in ids
        assert tokenizer.decode(ids) == text


@given(st.lists(st.text()))
def test_pieces_of_a_text_give_it_back_one_behind_the_other(pieces):
    ids = PIECES.encode_all(pieces)
    assert PIECES.decode(ids.values) == "".join(pieces)
    assert [PIECES.decode(row) for row in ids] == pieces


def test_byte_pairs_are_merged_by_how_often_they_stand_together():
    # Counts: "ab" 5 times, "abc" 3 times, "xy" twice.
    tokenizer = made("bpe", ["ab abc abc abc ab xy xy"], size=6 + 256 + 4, whole=False)
    assert [tokenizer.token(i) for i in range(262, 266)] == ["ab", "Ġab", "Ġabc", "xy"]
    assert [tokenizer.token(i) for i in tokenizer.encode("abc xyab").tolist()] == ["ab", "c", "Ġ", "xy", "ab"]


def test_the_first_word_of_a_text_of_its_own_is_like_any_other():
    assert BPE.encode("the the").tolist() == 2 * BPE.encode("the").tolist()
    assert PIECES.encode("the the").tolist() != 2 * PIECES.encode("the").tolist()


def test_characters_are_in_the_order_of_their_counts_and_others_are_unknown():
    tokenizer = made("characters", ["banana", "nab"])
    assert [tokenizer.token(i) for i in range(6, tokenizer.size)] == ["a", "n", "b"]
    assert tokenizer.encode("bad\nb").tolist() == [8, 6, UNK, UNK, 8]
    assert tokenizer.decode(torch.tensor([BOS, 8, 6, UNK, EOS, PAD])) == "ba<unk>"


@given(st.text(alphabet="ab \n\r\u2028é"))
def test_characters_give_a_text_back(text):
    assert made("characters", ["ab \n\r\u2028é"]).decode(made("characters", ["ab \n\r\u2028é"]).encode(text)) == text


def test_words_stand_between_white_space_and_line_ends_are_words():
    tokenizer = made("words", ["a b\ta \n a\u00a0c\n"], min_count=2)
    assert [tokenizer.token(i) for i in range(6, tokenizer.size)] == ["a", "\n"]
    ids = tokenizer.encode(" a  b\n\n<unk>a ")
    assert ids.tolist() == [6, UNK, 7, 7, UNK]
    assert tokenizer.decode(ids) == "a <unk> \n \n <unk>"


def test_phonemes_come_back_as_they_were():
    tokenizer = made("words", ["B AW1 T", "K AH0 Z"])
    assert tokenizer.decode(tokenizer.encode("K AW1 T")) == "K AW1 T"


def test_the_unknown_word_of_a_text_is_the_unknown_token():
    tokenizer = made("words", ["the <unk> <unk> <unk> cat the"])
    assert tokenizer.size == 8
    assert tokenizer.encode("cat the <unk>").tolist() == [7, 6, UNK]


def test_units_are_whole_words_whatever_is_in_them():
    tokenizer = make_units(["1 000", "a", "1 000", "<mask>", "<mask>"], TokenizerSettings("words"))
    assert [tokenizer.token(i) for i in range(6, tokenizer.size)] == ["1 000", "a"]
    assert tokenizer.encode_all(["a", "1 000", "1", "<mask>"]).values.tolist() == [7, 6, UNK, UNK]


def test_small_letters():
    for kind in ("characters", "words", "bpe", "bytes"):
        tokenizer = made(kind, lowercase=True)
        assert torch.equal(tokenizer.encode("The CAT"), tokenizer.encode("the cat")), kind


def test_size_keeps_the_commonest():
    tokenizer = made("words", ["c c c b b a"], size=8)
    assert [tokenizer.token(i) for i in range(6, tokenizer.size)] == ["c", "b"]
    assert made("bpe", size=270).size <= 270


def test_many_texts_are_encoded_a_few_at_a_time():
    read = 0

    def texts():
        nonlocal read
        for text in TEXTS * 3:
            read += 1
            yield text
            assert read <= 12

    rows = BPE.encode_all(texts(), at_once=5)
    assert [row.tolist() for row in rows] == [BPE.encode(text).tolist() for text in TEXTS * 3]
    assert rows.values.dtype == torch.int16
    assert len(BPE.encode_all([])) == 0


@pytest.mark.parametrize("kind", ALL)
def test_a_tokenizer_is_one_file_that_other_programs_read(kind, tmp_path):
    tokenizer = made(kind, tags=["<2de>"], lowercase=True)
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.read(tmp_path / "tokenizer.json")
    assert again.identity == tokenizer.identity
    assert again.tag("<2de>") == tokenizer.tag("<2de>") == 6
    text = "The dog <mask> sat"
    assert torch.equal(again.encode(text), tokenizer.encode(text))
    other = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert other.encode("the dog sat").ids == tokenizer.encode("the dog sat").tolist()
    assert other.decode(other.encode("the dog sat").ids) == "the dog sat"


@pytest.mark.parametrize("kind", ALL)
def test_the_same_texts_make_the_same_tokenizer(kind):
    texts = [" ".join(random.Random(i).choices(["ab", "ba", "abba", "bab", "é"], k=9)) for i in range(50)]
    assert len({made(kind, texts, size=400).identity for _ in range(5)}) == 1


def test_a_vocabulary_of_another_run_is_refused():
    ours = made("words").identity
    ours.check(made("words"), "tokenizer.json")
    with pytest.raises(ValueError, match=rf"runs/a: vocabulary must be that of the model, {ours.size} tokens, got 7"):
        ours.check(made("words", ["a"]), "runs/a")
    swapped = [text.replace("cat", "cow") for text in TEXTS]
    with pytest.raises(ValueError, match=r"runs/a: vocabulary must be that of the model, with digest \w{12}, got '\w"):
        ours.check(made("words", swapped), "runs/a")


def test_files_that_hold_no_tokenizer_of_ours_are_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(FileNotFoundError, match=r"tokenizer must be an existing file, tokenizer.json, got '.*json'"):
        Tokenizer.read(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer.json must be a tokenizer.json of the library tokenizers: "):
        Tokenizer.read(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"tokenizer.json must be a tokenizer.json"):
        Tokenizer.read(path)
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>")).save(str(path))
    with pytest.raises(ValueError, match=r"must be a tokenizer whose first tokens are <pad>, .*, got \('<unk>', None"):
        Tokenizer.read(path)


def test_a_given_file_is_used_as_it_is(tmp_path):
    path = str(tmp_path / "tokenizer.json")
    made("words", ["a b"], tags=["<2de>"]).save(tmp_path / "tokenizer.json")
    given_one = make_tokenizer(TokenizerSettings(file=path), ["c d"], tags=["<2de>"])
    assert given_one.encode("a c").tolist()[1] == UNK
    with pytest.raises(ValueError, match=r"tag must be one of <2de>, got '<2fr>'"):
        make_tokenizer(TokenizerSettings(file=path), [], tags=["<2fr>"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "byte"}, r"kind must be one of bpe, bytes, characters, words, got 'byte' \(did you mean 'bytes'\?\)"),
        ({"size": 261}, "size must be at least 262 for bpe, got 261"),
        ({"kind": "words", "size": 6}, "size must be at least 7 for words, got 6"),
        ({"min_count": 0}, "min_count must be at least 1, got 0"),
        (
            {"file": "a.json", "lowercase": True},
            r"file must be given .* by default \(lowercase = False\), got 'a.json'",
        ),
    ],
)
def test_settings_that_make_no_tokenizer_are_refused(options, message, unchecked):
    with pytest.raises(ValueError, match=message):
        TokenizerSettings(**options)


def test_what_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="texts must be such that some unit comes 9 times, got 'none'"):
        made("words", min_count=9)
    with pytest.raises(ValueError, match="size must be at least 263 for bpe, got 262"):
        made("bpe", size=262, tags=["<2de>"])


def test_the_signs_of_bytes_are_those_of_the_library():
    assert sorted(byte_tokens()) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())


def test_the_file_is_plain_json(tmp_path):
    made("bpe").save(tmp_path / "tokenizer.json")
    assert json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"][5]["content"] == "<blank>"

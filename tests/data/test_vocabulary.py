import json

import pytest
import torch

from saccade.data.vocabulary import MOST_WORDS, ByteVocabulary, SymbolVocabulary, WordVocabulary, vocabulary_from_dict

SYMBOLS = SymbolVocabulary(("[MAX", "]", "7", "0", "3"))


def test_bytes_are_their_own_ids():
    vocabulary = ByteVocabulary()
    ids = vocabulary.encode("né\0")
    assert ids.tolist() == [0x6E, 0xC3, 0xA9, 0]
    assert ids.dtype == torch.int16
    assert vocabulary.decode(ids) == "né\0"
    assert vocabulary.encode(bytes(range(256))).tolist() == list(range(256))
    assert vocabulary.encode("").tolist() == []
    assert vocabulary.encode("").dtype == torch.int16


def test_a_letter_cut_in_half_decodes_to_the_replacement_sign():
    assert ByteVocabulary().decode(ByteVocabulary().encode("né")[:2]) == "n\N{REPLACEMENT CHARACTER}"


def test_symbols_are_numbered_in_order():
    ids = SYMBOLS.encode(" [MAX 3  0\n] ")
    assert ids.tolist() == [0, 4, 3, 1]
    assert ids.dtype == torch.int16
    assert SYMBOLS.decode(ids) == "[MAX 3 0 ]"
    assert torch.equal(SYMBOLS.encode(b"[MAX 3 0 ]"), ids)


@pytest.mark.parametrize(("vocabulary", "size"), [(ByteVocabulary(), 257), (SYMBOLS, 6)])
def test_padding_is_the_last_id_and_is_not_decoded(vocabulary, size):
    assert vocabulary.size == size
    assert vocabulary.pad_id == size - 1
    ids = torch.tensor([3, vocabulary.pad_id, 2, vocabulary.pad_id])
    assert vocabulary.decode(ids) == vocabulary.decode(torch.tensor([3, 2]))


@pytest.mark.parametrize("vocabulary", [ByteVocabulary(), SYMBOLS, WordVocabulary(("a", "b"))])
def test_a_vocabulary_comes_back_from_json(vocabulary):
    assert vocabulary_from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary


def test_an_unknown_symbol_is_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"symbol must be one of .*, got '\[MAXX' \(did you mean '\[MAX'\?\)"):
        SYMBOLS.encode("[MAXX 3 ]")


@pytest.mark.parametrize("symbols", [("a", "b", "a"), ("a", ""), ("a", "b c"), ("a", "b ")])
def test_symbols_that_could_not_be_read_back_are_refused(symbols):
    with pytest.raises(ValueError, match="symbols must be different, not empty and without white space"):
        SymbolVocabulary(symbols)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind of vocabulary must be one of bytes, symbols, words, got 'byte'"):
        vocabulary_from_dict({"kind": "byte"})


def test_the_commonest_words_are_told_apart():
    found = WordVocabulary.of([b"a b b, c c c", b"c, b a d"], 3)
    assert found.words == ("c", "b", ",")
    assert found.encode("c d, B\nb").tolist() == [0, 3, 2, 3, 1]
    assert found.decode(torch.tensor([0, 3, 1, found.pad_id])) == "c <unk> b"
    assert found.encode(b" ").tolist() == [3]
    assert WordVocabulary.of([b"b a"], 1).words == ("a",)


def test_words_are_letters_and_digits_that_stand_together():
    assert WordVocabulary.of(["don't  see S\u00e4ule no. 3!".encode()], 99).words == tuple(
        sorted(["don", "'", "t", "see", "S\u00e4ule", "no", ".", "3", "!"])
    )
    assert WordVocabulary(("S", "\u00e4")).encode("\u00e4S\u00e4".encode()[:-1]).tolist() == [2]


@pytest.mark.parametrize("words", [("a", "a"), tuple(map(str, range(MOST_WORDS + 1)))])
def test_words_that_could_not_be_told_apart_are_refused(words):
    with pytest.raises(ValueError, match=f"words must be at most {MOST_WORDS:,} and different"):
        WordVocabulary(words)

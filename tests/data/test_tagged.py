import logging

import pytest
import torch

from saccade.data.tagged import TaggedSettings, TaggedVocabulary, encode_sentences, load_tagged
from saccade.data.tagged_examples import NO_TAG
from saccade.data.tokenizer import PAD, UNK

TRAIN = "The\tO\ncat\tB-x\n\nthe\tO\nCat\tB-x\nsat\tI-x\n\nthe\tO\n\n"


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    texts = {"source": TRAIN, "validation": "a\tO\ncat\tB-y\n", "test": "the\tO\n\ncatz\tB-x\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.conll").write_text(text)
    return {name: str(tmp_path / f"{name}.conll") for name in texts}


def test_words_characters_and_tags_become_ids(files):
    data = load_tagged(TaggedSettings(**files))
    words, characters, tags = data.vocabulary.words, data.vocabulary.characters, data.vocabulary.tags
    assert tags == ("B-x", "B-y", "I-x", "O")
    assert [words.token(i) for i in data.train.words.values.tolist()] == ["the", "cat", "the", "cat", "<unk>", "the"]
    assert [characters.decode(row) for row in data.train.characters] == ["The", "cat", "the", "Cat", "sat", "the"]
    assert [[tags[i] for i in row.tolist()] for row in data.train.tags] == [["O", "B-x"], ["O", "B-x", "I-x"], ["O"]]
    assert data.train.lengths.tolist() == [2, 3, 1]
    assert [characters.decode(row) for row in data.test.characters] == ["the", "cat<unk>"]
    assert data.facts["unknown words"] == "train 16.7%, validation 50.0%, test 50.0%"
    assert data.facts["sentences"] == "train 3, validation 1, test 2"


def test_words_may_keep_their_capitals(files):
    data = load_tagged(TaggedSettings(**files, lowercase=False, min_count=1))
    words = data.vocabulary.words
    assert [words.token(i) for i in data.train.words.values.tolist()] == ["The", "cat", "the", "Cat", "sat", "the"]


def test_a_batch_is_padded_on_the_right_in_all_that_it_has(files):
    split = load_tagged(TaggedSettings(**files, letters=2)).train
    batch = split.batch(torch.tensor([2, 1]))
    assert batch.words.shape == batch.tags.shape == batch.key_mask.shape == (2, 3)
    assert batch.characters.shape == (2, 3, 2)
    assert batch.key_mask.tolist() == [[True, False, False], [True] * 3]
    assert batch.words[0].tolist() == [split.words[2].item(), PAD, PAD]
    assert batch.tags[0].tolist() == [split.tags[2].item(), NO_TAG, NO_TAG]
    assert batch.characters[0, 1:].tolist() == [[PAD, PAD], [PAD, PAD]]
    assert batch.characters[1].tolist() == [split.characters[i].tolist() for i in (2, 3, 4)]
    assert batch.rows.tolist() == [2, 1]
    assert batch.words.dtype == batch.characters.dtype == batch.tags.dtype == torch.int64
    assert len(batch.to("meta")) == 2


def test_long_sentences_are_skipped_in_training_alone_and_counted(files, caplog):
    with caplog.at_level(logging.WARNING):
        data = load_tagged(TaggedSettings(**files | {"test": files["source"]}, max_words=2))
    assert [len(split) for split in data.splits.values()] == [2, 1, 3]
    what = "train: sentences longer than max_words = 2, skipped"
    assert data.facts[what] == f"1, the first in {files['source']}, line 4"
    assert [record.message for record in caplog.records] == [f"{what}: 1 (the first: {files['source']}, line 4)"]


def test_long_sentences_may_be_refused(files):
    message = r"source\.conll, line 4: the sentence must be at most max_words = 2 words long, got 3"
    with pytest.raises(ValueError, match=message):
        load_tagged(TaggedSettings(**files, max_words=2, unfit="fail"))


def test_entities_that_never_began_are_counted(files, caplog, tmp_path):
    (tmp_path / "test.conll").write_text("the\tO\n\na\tO\ncat\tI-x\nsat\tI-x\n\nit\tI-y\n")
    data = load_tagged(TaggedSettings(**files))
    what = "test: I- tags that continue no entity"
    assert data.facts[what] == f"2, the first in {files['test']}, line 3, word 2"
    assert f"{what}: 2 (the first: {files['test']}, line 3, word 2)" in caplog.text
    assert data.vocabulary.tags[data.test.tags[1][1]] == "I-x"


def test_parts_without_a_file_are_held_out_and_no_sentence_is_on_two_sides(tmp_path):
    (tmp_path / "a.conll").write_text("".join(f"w{i % 200}\tO\nx\tO\n\n" for i in range(400)))
    data = load_tagged(TaggedSettings(str(tmp_path / "a.conll"), min_count=1))
    seen = [{row[0].item() for row in split.words} - {UNK} for split in data.splits.values()]
    sizes = [len(split) for split in data.splits.values()]
    assert sum(sizes) == 400
    assert all(20 <= size <= 70 for size in sizes[1:])
    assert seen[1] == seen[2] == set()
    assert len(seen[0]) == sizes[0] / 2
    other = load_tagged(TaggedSettings(str(tmp_path / "a.conll"), min_count=1, seed=1))
    assert other.vocabulary.words.identity != data.vocabulary.words.identity
    given = load_tagged(TaggedSettings(str(tmp_path / "a.conll"), test=str(tmp_path / "a.conll")))
    assert len(given.test) == 400 == len(given.train) + len(given.validation)


def test_a_vocabulary_comes_back_and_reads_other_files(files, tmp_path):
    data = load_tagged(TaggedSettings(**files))
    data.vocabulary.save(tmp_path)
    again = TaggedVocabulary.read(tmp_path)
    assert again.tags == data.vocabulary.tags
    assert again.words.identity == data.vocabulary.words.identity
    loaded = load_tagged(TaggedSettings(**files | {"source": files["test"]}), again)
    assert torch.equal(loaded.test.words.values, data.test.words.values)
    assert torch.equal(loaded.test.characters.values, data.test.characters.values)


def test_a_tag_that_the_vocabulary_has_not_is_refused_with_its_place(files, tmp_path):
    vocabulary = load_tagged(TaggedSettings(**files)).vocabulary
    (tmp_path / "test.conll").write_text("a\tO\n\na\tB-z\n")
    message = r"test\.conll, line 3, word 1: tag must be one of B-x, B-y, I-x, O, got 'B-z'"
    with pytest.raises(ValueError, match=message):
        load_tagged(TaggedSettings(**files), vocabulary)


def test_damaged_vocabularies_are_refused(files, tmp_path):
    load_tagged(TaggedSettings(**files)).vocabulary.save(tmp_path)
    (tmp_path / "tags.json").write_text('{"tags": ["O"]}')
    with pytest.raises(ValueError, match=r"tags\.json must be the tags of a vocabulary: KeyError\('letters'\)"):
        TaggedVocabulary.read(tmp_path)
    (tmp_path / "words.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer must be an existing file"):
        TaggedVocabulary.read(tmp_path)


def test_an_empty_part_is_refused(files, tmp_path):
    (tmp_path / "test.conll").write_text("\n\n")
    with pytest.raises(ValueError, match=r"test\.conll must be a file with sentences in it to make the part test, got"):
        load_tagged(TaggedSettings(**files))
    (tmp_path / "source.conll").write_text("two\tO\nwords\tO\n")
    with pytest.raises(ValueError, match=r"source\.conll must be a file with sentences in it to make the part train"):
        load_tagged(TaggedSettings(**files | {"test": files["validation"]}, max_words=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_count": 0}, "min_count must be a whole number, at least 1, got 0"),
        ({"letters": 0}, "letters must be a whole number, at least 1, got 0"),
        ({"max_words": 0}, "max_words must be a whole number, at least 1, got 0"),
        ({"size": 0}, "size must be a whole number, at least 1, got 0"),
        ({"tag": "pos"}, r"tag must be one of upos, xpos, got 'pos' \(did you mean 'xpos'\?\)"),
        ({"unfit": "cut"}, "unfit must be one of fail, skip, got 'cut'"),
    ],
)
def test_settings_that_make_no_data_are_refused(options, message, unchecked):
    with pytest.raises(ValueError, match=message):
        TaggedSettings("a.conll", **options)


def test_encoding_nothing_is_nothing(files):
    vocabulary = load_tagged(TaggedSettings(**files)).vocabulary
    assert len(encode_sentences([], vocabulary)) == 0

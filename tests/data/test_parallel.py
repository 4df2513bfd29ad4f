import logging

import pytest
import torch

from saccade.data.pair_encoding import ParallelVocabulary, encode_pairs
from saccade.data.pairs import Pair
from saccade.data.parallel import ParallelSettings, load_parallel
from saccade.data.tokenizer import BOS, EOS, PAD, UNK
from saccade.data.tokenizer_training import TokenizerSettings

WORDS, CHARACTERS = TokenizerSettings("words"), TokenizerSettings("characters")
TEXTS = {
    "train.en": "a cat\na dog sits\na cat\n",
    "train.de": "eine Katze\nein Hund sitzt da\nKatze\n",
    "train.fr": "un chat\nun chien\nchat\n",
    "val.en": "a cat\na cow\na cat\n",
    "val.de": "eine Katze\neine Kuh\ndie Katze\n",
    "val.fr": "un chat\nune vache\nle chat\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def settings(folder, **options) -> ParallelSettings:
    parts = {"source": "train.{}", "validation": "val.{}", "test": "val.{}"}
    files = {part: str(folder / name) for part, name in parts.items()}
    return ParallelSettings(**{"read": "en", "write": ("de",), "tokenizer": WORDS, **files, **options})


def texts(tokenizer, rows) -> list[str]:
    return [tokenizer.decode(row) for row in rows]


def test_pairs_become_ids_that_end(folder):
    data = load_parallel(settings(folder))
    assert data.vocabulary.shared
    assert texts(data.vocabulary.source, data.train.sources) == ["a cat", "a dog sits", "a cat"]
    assert texts(data.vocabulary.target, data.train.targets) == ["eine Katze", "ein Hund sitzt da", "Katze"]
    assert all(row[-1] == EOS and EOS not in row[:-1] for row in (*data.train.sources, *data.test.targets))
    assert data.train.lengths.tolist() == [3, 5, 3]
    assert data.train.texts == ()
    assert data.facts["pairs"] == "train 3, validation 3, test 3"


def test_texts_to_score_on_are_kept_as_they_were(folder):
    data = load_parallel(settings(folder))
    assert data.test.texts == ("a cat", "a cow", "a cat")
    assert data.test.references == (("eine Katze",), ("eine Kuh",), ("die Katze",))
    assert texts(data.vocabulary.target, data.test.targets) == ["eine Katze", "eine <unk>", "<unk> Katze"]


def test_rows_that_read_the_same_may_be_one_example_with_several_references(folder):
    data = load_parallel(settings(folder, write=("de", "fr"), group_references=True))
    assert data.test.texts == ("a cat", "a cat", "a cow", "a cow")
    assert data.test.references[0] == ("eine Katze", "die Katze")
    assert data.test.references[1] == ("un chat", "le chat")
    assert data.test.sides.tolist() == [0, 1, 0, 1]
    assert texts(data.vocabulary.target, data.test.targets)[0] == "eine Katze"
    assert len(data.train) == 6


def test_a_side_may_have_a_vocabulary_of_its_own(folder):
    data = load_parallel(settings(folder, tokenizer=CHARACTERS, target_tokenizer=WORDS))
    assert not data.vocabulary.shared
    assert texts(data.vocabulary.source, data.test.sources) == ["a cat", "a co<unk>", "a cat"]
    assert data.vocabulary.source.encode("K").tolist() == [UNK]
    assert data.facts["vocabulary"] == "15 and 12 tokens"


def test_vocabularies_are_learned_from_the_training_part_alone(folder):
    before = load_parallel(settings(folder)).vocabulary.source.identity
    (folder / "val.de").write_text("x\ny\nz\n")
    assert load_parallel(settings(folder)).vocabulary.source.identity == before


def test_a_tag_before_the_source_says_what_to_write(folder):
    data = load_parallel(settings(folder, write=("fr", "de")))
    tags = [data.vocabulary.source.tag(name) for name in ("<2fr>", "<2de>")]
    assert tags == [6, 7]
    assert [row[0].item() for row in data.train.sources] == [tags[side] for side in data.train.sides.tolist()]
    assert data.train.sides.tolist() == [0, 1] * 3
    assert data.vocabulary.source.decode(data.train.sources[0]) == "a cat"
    assert data.train.targets[0][0] not in tags
    sources = data.vocabulary.encode_sources(["a dog"], torch.tensor([1]))
    assert sources[0].tolist()[::3] == [7, EOS]


def test_a_source_counts_once_however_many_targets_it_has(folder):
    options = {"target_tokenizer": WORDS, "tokenizer": TokenizerSettings("words", min_count=2)}
    vocabulary = load_parallel(settings(folder, write=("de", "fr"), **options)).vocabulary
    assert vocabulary.source.encode("dog cat").tolist()[0] == UNK
    assert vocabulary.source.encode("dog cat").tolist()[1] != UNK


def test_a_batch_is_padded_on_the_right_and_read_behind_a_begin(folder):
    split = load_parallel(settings(folder)).train
    batch = split.batch(torch.tensor([1, 2]))
    dog, cat = split.targets[1].tolist(), split.targets[2].tolist()
    assert batch.target.tolist() == [dog, [*cat, PAD, PAD, PAD]]
    assert batch.inputs.tolist() == [[BOS, *dog[:-1]], [BOS, *cat[:-1], PAD, PAD, PAD]]
    assert batch.target_mask.tolist() == [[True] * 5, [True] * 2 + [False] * 3]
    assert batch.source_mask.sum(1).tolist() == [4, 3]
    assert batch.source[1, 3] == PAD
    assert batch.rows.tolist() == [1, 2]
    assert len(batch.to("meta")) == 2


def test_pairs_over_a_limit_are_skipped_in_training_alone_and_counted(folder, caplog):
    with caplog.at_level(logging.WARNING):
        data = load_parallel(settings(folder, max_source=3, max_target=2))
    assert texts(data.vocabulary.source, data.train.sources) == ["a cat"]
    assert len(data.test) == 3
    target, source = (
        "train: targets over max_target = 2 tokens, skipped",
        "train: sources over max_source = 3 tokens, s",
    )
    assert data.facts[target] == f"1, the first in {folder}/train.de, line 1"
    assert f"{source}kipped: 1 (the first: {folder}/train.de, line 2)" in caplog.text


def test_pairs_with_an_empty_side_are_skipped_in_training_and_counted(folder):
    (folder / "train.en").write_text("a cat\n \na dog\n\n")
    (folder / "train.de").write_text("eine Katze\nein\n\n\n")
    data = load_parallel(settings(folder))
    assert len(data.train) == 1
    assert data.facts["train: empty sources, skipped"] == f"2, the first in {folder}/train.de, line 2"
    assert data.facts["train: empty targets, skipped"] == f"1, the first in {folder}/train.de, line 3"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_source": 3}, r"train\.de, line 2: source must be at most max_source = 3 tokens, got 4"),
        ({"max_target": 2}, r"train\.de, line 1: target must be at most max_target = 2 tokens, got 3"),
    ],
)
def test_pairs_over_a_limit_may_be_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        load_parallel(settings(folder, unfit="fail", **options))


def test_empty_sides_are_refused_where_they_would_change_a_score(folder):
    (folder / "val.de").write_text("eine\n\ndie\n")
    with pytest.raises(ValueError, match=r"val\.de, line 2: target must be a text that is not empty, got ''"):
        load_parallel(settings(folder))
    (folder / "train.en").write_text("a\n\na\n")
    with pytest.raises(ValueError, match=r"train\.de, line 2: source must be a text that is not empty, got ''"):
        load_parallel(settings(folder, unfit="fail"))


def test_parts_without_files_are_held_out_and_no_source_is_on_two_sides(tmp_path):
    rows = "".join(f"w{i % 150}\tv{i}\n" for i in range(300))
    (tmp_path / "a.tsv").write_text("x\ty\n" + rows)
    data = load_parallel(ParallelSettings(str(tmp_path / "a.tsv"), "x", ("y",), tokenizer=WORDS))
    assert sum(map(len, data.splits.values())) == 300
    assert all(10 <= len(split) <= 60 for split in (data.validation, data.test))
    trained = set(texts(data.vocabulary.source, data.train.sources))
    assert not trained & {*data.validation.texts, *data.test.texts}
    assert not {*data.validation.texts} & {*data.test.texts}


def test_an_empty_part_is_refused(folder):
    for side in ("en", "de"):
        (folder / f"val.{side}").write_text("")
    with pytest.raises(ValueError, match=r"val\.\{\} must be a file with pairs in it to make the part validation, got"):
        load_parallel(settings(folder))
    for side in ("en", "de"):
        (folder / f"train.{side}").write_text("")
    with pytest.raises(ValueError, match=r"train\.\{\} must be a file with pairs in it to make the part train, got"):
        load_parallel(settings(folder))


@pytest.mark.parametrize("own", [None, WORDS])
def test_a_vocabulary_comes_back_and_nothing_is_learned_again(folder, tmp_path, own):
    data = load_parallel(settings(folder, write=("de", "fr"), target_tokenizer=own))
    data.vocabulary.save(tmp_path)
    again = ParallelVocabulary.read(tmp_path, ("de", "fr"))
    assert again.shared == (own is None)
    (folder / "train.en").write_text("x\ny\nz\n")
    loaded = load_parallel(settings(folder, write=("de", "fr"), target_tokenizer=own), again)
    assert torch.equal(loaded.test.sources.values, data.test.sources.values)
    assert torch.equal(loaded.test.targets.values, data.test.targets.values)
    with pytest.raises(ValueError, match=r"tag must be one of <2de>, <2fr>, got '<2cs>'"):
        ParallelVocabulary.read(tmp_path, ("de", "cs"))


def test_a_side_that_the_model_does_not_write_is_refused(folder):
    vocabulary = load_parallel(settings(folder)).vocabulary
    with pytest.raises(ValueError, match=r"a\.fr, line 1: write must be one of de, got 'fr'"):
        encode_pairs([Pair("a", "b", "fr", "a.fr, line 1")], vocabulary)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"write": ()}, r"write must be one name or several different ones, got \(\)"),
        ({"write": ("de", "de")}, r"write must be one name or several different ones, got \('de', 'de'\)"),
        ({"max_source": 1}, "max_source must be a whole number, at least 2, got 1"),
        ({"max_target": 0}, "max_target must be a whole number, at least 2, got 0"),
        ({"unfit": "skipped"}, r"unfit must be one of fail, skip, got 'skipped' \(did you mean 'skip'\?\)"),
    ],
)
def test_settings_that_make_no_data_are_refused(options, message, unchecked):
    with pytest.raises(ValueError, match=message):
        ParallelSettings("a.tsv", "x", **{"write": ("y",), **options})

"""The text sets that lie next to a checkout, where they do: counts as their own pages give them."""

import pytest
import torch
from test_real_data import FOLDER

from saccade.data.batch_plans import by_tokens
from saccade.data.parallel import ParallelSettings, load_parallel
from saccade.data.sentences import read_sentences
from saccade.data.stream import StreamSettings, load_streams
from saccade.data.tagged import TaggedSettings, load_tagged
from saccade.data.tokenizer_training import TokenizerSettings

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no data sets in {FOLDER} (SACCADE_DATA names another folder)"),
]


def files(pattern: str, names: str = "train validation test") -> dict[str, str]:
    options = zip(("source", "validation", "test"), names.split(), strict=True)
    return {option: str(FOLDER / pattern.replace("*", name)) for option, name in options}


def test_tinyshakespeare_in_characters():
    settings = StreamSettings(**files("tinyshakespeare/*.txt"), tokenizer=TokenizerSettings("characters"))
    data = load_streams(settings)
    assert [len(split.tokens) - 1 for split in data.splits.values()] == [1_003_857, 55_825, 55_712]
    assert data.tokenizer.size == 6 + 65
    assert data.test.unknown == 0
    assert data.tokenizer.decode(data.train.tokens[:15]) == "First Citizen:"


def test_novels_in_bytes():
    # Its smaller two files: the format is the same.
    data = load_streams(StreamSettings(**files("novels-lm/*.txt.gz", "validation validation test"), document="# "))
    assert [split.bytes for split in data.splits.values()] == [384_498, 384_498, 649_971]
    assert [split.documents for split in data.splits.values()] == [1, 1, 1]
    assert len(data.test.tokens) == 1 + 649_971 + 1


def test_wikitext_in_words():
    settings = StreamSettings(
        **files("wikitext2-part/*.txt"), document=r" = [^=]+ = $", tokenizer=TokenizerSettings("words", size=50_000)
    )
    data = load_streams(settings)
    assert [split.documents for split in data.splits.values()] == [48, 6, 6]
    line_end = data.tokenizer.encode("\n")[0]
    words = [int((split.tokens > 5).sum() - (split.tokens == line_end).sum()) for split in data.splits.values()]
    unknown = [int((split.tokens == 3).sum()) for split in data.splits.values()]
    assert [a + b for a, b in zip(words, unknown, strict=True)] == [177_029, 12_973, 23_884]


def test_wnut_entities():
    data = load_tagged(TaggedSettings(**files("wnut17-ner/*.conll")))
    assert [len(split) for split in data.splits.values()] == [3394, 1009, 1287]
    assert [len(split.words.values) for split in data.splits.values()] == [62_730, 15_733, 23_394]
    begins = [i for i, tag in enumerate(data.vocabulary.tags) if tag.startswith("B-")]
    counts = [int(torch.isin(split.tags.values, torch.tensor(begins)).sum()) for split in data.splits.values()]
    assert counts == [1975, 836, 1079]
    assert len(data.vocabulary.tags) == 13
    assert data.found == {}


def test_english_web_treebank():
    sentences = list(read_sentences(str(FOLDER / "ud-english-ewt" / "en_ewt-ud-test.conllu.gz")))
    assert len(sentences) == 2077
    assert sum(len(sentence.words) for sentence in sentences) == 25_094
    assert len({tag for sentence in sentences for tag in sentence.tags}) == 17
    assert sentences[0].words[:6] == ("What", "if", "Google", "Morphed", "Into", "GoogleOS")


def test_multi30k_to_two_languages():
    # The smaller files: learning from all 29,000 lines takes a while.
    paths = files("multi30k/*.{}.gz", "val val test_2016_flickr")
    settings = ParallelSettings(
        **paths, read="en", write=("de", "fr"), tokenizer=TokenizerSettings(size=1000), max_target=100
    )
    data = load_parallel(settings)
    assert [len(split) for split in data.splits.values()] == [2 * 1014, 2 * 1014, 2 * 1000]
    for texts, rows in (
        (data.test.texts, data.test.sources),
        ([r[0] for r in data.test.references], data.test.targets),
    ):
        assert [data.vocabulary.target.decode(row) for row in rows] == list(texts)
    for rows in by_tokens(data.train.lengths, 2000):
        batch = data.train.batch(rows)
        assert max(batch.source.numel(), batch.target.numel()) <= 2000


def test_pronunciations():
    settings = ParallelSettings(
        **files("cmudict-g2p/*.tsv.gz", "validation validation test"),
        read="word",
        write=("phones",),
        tokenizer=TokenizerSettings("characters"),
        target_tokenizer=TokenizerSettings("words"),
        group_references=True,
    )
    data = load_parallel(settings)
    assert [len(split) for split in data.splits.values()] == [5485, 5112, 5093]
    assert sum(map(len, data.test.references)) == 5473
    assert data.vocabulary.target.decode(data.test.targets[0]) == data.test.references[0][0]


def test_sentences_to_split():
    settings = ParallelSettings(
        **files("wiki-split/*.tsv.gz", "validation validation test"), read="complex", write=("simple",)
    )
    data = load_parallel(settings)
    assert [len(split) for split in data.splits.values()] == [1032, 1032, 1452]
    assert all(" <::::> " in references[0] for references in data.test.references)
    assert [data.vocabulary.target.decode(row) for row in data.test.targets] == [r[0] for r in data.test.references]

"""What a recipe says of its data: each text task's settings are read from TOML and written back."""

from dataclasses import dataclass

import pytest

from saccade import config
from saccade.data.parallel import ParallelSettings
from saccade.data.stream import StreamSettings
from saccade.data.tagged import TaggedSettings
from saccade.data.tokenizer_training import TokenizerSettings


@dataclass(frozen=True)
class Streams:
    data: StreamSettings


@dataclass(frozen=True)
class Tagged:
    data: TaggedSettings


@dataclass(frozen=True)
class Parallel:
    data: ParallelSettings


RECIPES = [
    (
        Streams,
        '[data]\nsource = "train.txt"\nvalidation = "validation.txt"\ndocument = "# "\n'
        '[data.tokenizer]\nkind = "words"\nmin_count = 3\n',
        StreamSettings("train.txt", "validation.txt", document="# ", tokenizer=TokenizerSettings("words", min_count=3)),
    ),
    (
        Tagged,
        '[data]\nsource = "train.conllu.gz"\ntag = "xpos"\nletters = 16\nunfit = "fail"\n',
        TaggedSettings("train.conllu.gz", tag="xpos", letters=16, unfit="fail"),
    ),
    (
        Parallel,
        '[data]\nsource = "train.{}.gz"\nread = "en"\nwrite = ["de", "fr"]\n[data.tokenizer]\nsize = 6000\n',
        ParallelSettings("train.{}.gz", "en", ("de", "fr"), tokenizer=TokenizerSettings(size=6000)),
    ),
    (
        Parallel,
        '[data]\nsource = "train.tsv"\nread = "word"\nwrite = ["phones"]\ngroup_references = true\n'
        '[data.tokenizer]\nkind = "characters"\n[data.target_tokenizer]\nkind = "words"\n',
        ParallelSettings(
            "train.tsv",
            "word",
            ("phones",),
            tokenizer=TokenizerSettings("characters"),
            target_tokenizer=TokenizerSettings("words"),
            group_references=True,
        ),
    ),
]


@pytest.mark.parametrize(("recipe", "text", "settings"), RECIPES)
def test_settings_are_read_from_toml_and_written_back(tmp_path, recipe, text, settings):
    (tmp_path / "recipe.toml").write_text(text)
    found = config.load(tmp_path / "recipe.toml", recipe)
    assert found.data == settings
    (tmp_path / "again.toml").write_text(config.dump(found))
    assert config.load(tmp_path / "again.toml", recipe) == found


def test_a_value_that_does_not_fit_is_refused_with_its_line(tmp_path):
    (tmp_path / "a.toml").write_text('[data]\nsource = "a.txt"\n[data.tokenizer]\nkind = "bpe"\nsize = 9\n')
    with pytest.raises(ValueError, match=r"a\.toml, line 5: data\.tokenizer\.size must be at least 262 for bpe, got 9"):
        config.load(tmp_path / "a.toml", Streams)

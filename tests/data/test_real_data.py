"""The data sets that lie next to a checkout, where they do: `SACCADE_DATA` or `../shared/data`."""

import gzip
import os
from pathlib import Path

import pytest
from test_generated import evaluate

from saccade.data import DataSettings, load
from saccade.data.generated import VOCABULARY

FOLDER = Path(os.environ.get("SACCADE_DATA", Path(__file__).parents[3] / "shared" / "data"))

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no data sets in {FOLDER} (SACCADE_DATA names another folder)"),
]


def parts(name: str, ending: str) -> dict[str, str]:
    files = {"source": "train", "validation": "validation", "test": "test"}
    return {option: str(FOLDER / name / f"{part}{ending}") for option, part in files.items()}


def test_movie_reviews():
    data = load(DataSettings(length=4096, **parts("movie-reviews", ".jsonl.gz")))
    assert [len(split) for split in data.splits.values()] == [1600, 200, 200]
    assert data.classes == ("0", "1")
    assert data.majority_share(data.test) == 0.5
    assert data.vocabulary.decode(data.train.sequences[0][:28]) == "plot : two teen couples go to"[:28]
    assert data.longest == 4096


def test_listops_are_written_and_valued_as_ours_are():
    settings = DataSettings(text_column="expression", length=10_000, **parts("listops", ".tsv.gz"))
    data = load(settings)
    assert [len(split) for split in data.splits.values()] == [6500, 1000, 1000]
    for sequence, label in zip(data.test.sequences, data.test.labels.tolist(), strict=True):
        expression = data.vocabulary.decode(sequence).replace("(", "").replace(")", "")
        ids = VOCABULARY.encode(expression)
        assert VOCABULARY.decode(ids) == " ".join(expression.split())
        if len(ids) > 1:
            assert str(evaluate(expression)[0]) == data.classes[label]


def test_a_part_of_the_authors_is_split():
    with gzip.open(FOLDER / "authors-4k" / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = sum(1 for _ in file)
    data = load(DataSettings(source=str(FOLDER / "authors-4k" / "test.jsonl.gz"), length=4096))
    assert [len(split) for split in data.splits.values()] == [0.8 * rows, 0.1 * rows, 0.1 * rows]
    assert data.majority_share(data.test) == pytest.approx(0.1)

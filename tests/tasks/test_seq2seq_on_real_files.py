"""The recipes for pairs on the files they name, where these lie next to a checkout: a few steps of a tiny model."""

import os
from pathlib import Path

import pytest

from saccade.tasks import load_recipe, train

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("SACCADE_DATA", ROOT.parent / "shared" / "data"))

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no data sets in {FOLDER} (SACCADE_DATA names another folder)"),
]

TINY = ("model.width=8", "model.heads=2", "model.layers=1", "model.decoder_layers=1", "model.hidden=8")
EXAMPLES = {"multi30k": 1000, "multi30k-3": 3000, "cmudict": 5093, "wiki-split": 1452}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_recipe_runs_on_its_files(name, tmp_path):
    path = ROOT / "recipes" / f"{name}.toml"
    data = load_recipe(path).data
    part = {
        field: FOLDER / Path(getattr(data, field)).relative_to("../shared/data") for field in ("validation", "test")
    }
    # The smaller files to train on, too: the format is the same.
    files = [f"data.source={part['validation']}", *(f"data.{field}={file}" for field, file in part.items())]
    quick = ["training.steps=2", "training.validate_every=2", "method=greedy(max_length=4)"]
    metrics = train(load_recipe(path, [*files, *TINY, *quick]), tmp_path / "run", quiet=True)
    assert metrics["examples"] == EXAMPLES[name]
    for score in load_recipe(path).metrics:
        for side in data.write if len(data.write) > 1 else [None]:
            assert metrics[score if side is None else f"{score}_{side}"] >= 0

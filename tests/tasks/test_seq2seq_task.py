import random

import pytest
import torch

from saccade.data.parallel import ParallelSettings
from saccade.data.tokenizer_training import TokenizerSettings
from saccade.models import Seq2SeqSettings
from saccade.tasks import resume, train
from saccade.tasks.seq2seq import Recipe, load
from saccade.training import TrainingSettings

MODEL = Seq2SeqSettings(width=16, heads=2, layers=1, decoder_layers=1, hidden=32, dropout=0.1)
TRAINING = TrainingSettings(steps=9, learning_rate=0.01, checkpoint_every=4, validate_every=4)
CHARACTERS = TokenizerSettings("characters")


def words(count, seed):
    """Different words of two to six letters."""
    draw = random.Random(seed)
    found = dict.fromkeys("".join(draw.choices("abcd", k=draw.randint(2, 6))) for _ in range(3 * count))
    return list(found)[:count]


def table(path, rows, header="word\treversed"):
    path.write_text("".join(f"{line}\n" for line in (header, *("\t".join(row) for row in rows))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Words and the same from behind."""
    return table(tmp_path_factory.mktemp("pairs") / "pairs.tsv", [(word, word[::-1]) for word in words(200, 0)])


@pytest.fixture(scope="module")
def recipe(pairs):
    data = ParallelSettings(str(pairs), "word", ("reversed",), tokenizer=CHARACTERS, max_source=20, max_target=20)
    return Recipe(
        data, model=MODEL, batch_tokens=64, method="greedy(max_length=9)", metrics=("word_error",), training=TRAINING
    )


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    """A finished run that no test changes."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, train(recipe, folder, quiet=True)


TIMES = ("seconds", "steps_per_second")


def timeless(metrics):
    return {name: value for name, value in metrics.items() if name not in TIMES}


def test_a_stopped_run_goes_on_as_if_it_had_not(finished, recipe, tmp_path):
    class StoppedError(Exception):
        pass

    def stop(step, loss, seconds):
        if step == 6:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(recipe, tmp_path / "run", on_step=stop, quiet=True)
    metrics = resume(tmp_path / "run", quiet=True)
    assert timeless(metrics) == timeless(finished[1])
    for one, other in zip(load(tmp_path / "run")[0].parameters(), load(finished[0])[0].parameters(), strict=True):
        assert torch.equal(one, other)

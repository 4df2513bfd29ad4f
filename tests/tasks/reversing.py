"""Words to write from behind: a task for a small model from sequence to sequence."""

import random

from saccade.data.parallel import ParallelSettings
from saccade.data.tokenizer_training import TokenizerSettings
from saccade.models import Seq2SeqSettings
from saccade.training import TrainingSettings

MODEL = Seq2SeqSettings(width=16, heads=2, layers=1, decoder_layers=1, hidden=32, dropout=0.1)
TRAINING = TrainingSettings(steps=9, learning_rate=0.01, checkpoint_every=4, validate_every=4)


def words(count):
    """Different words of two to four letters."""
    draw = random.Random(0)
    found = dict.fromkeys("".join(draw.choices("abcd", k=draw.randint(2, 4))) for _ in range(4 * count))
    return list(found)[:count]


def table(path, rows, header="word\treversed"):
    path.write_text("".join(f"{line}\n" for line in (header, *("\t".join(row) for row in rows))), encoding="utf-8")
    return path


def data_of(path, **options):
    limits = {"max_source": 20, "max_target": 20}
    characters = TokenizerSettings("characters")
    return ParallelSettings(str(path), "word", ("reversed",), tokenizer=characters, **(limits | options))

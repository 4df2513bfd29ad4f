"""Small recipes with one label a sequence, and what their tests share."""

import csv
import os
import signal
from dataclasses import replace

import torch

from saccade.data import DataSettings
from saccade.models import ClassifierSettings
from saccade.tasks.classification import Recipe
from saccade.training import TrainingSettings

MODEL = ClassifierSettings(mechanism="local(left=3)", width=12, heads=3, layers=1, hidden=17, dropout=0.2)
TRAINING = TrainingSettings(steps=11, batch_size=7, learning_rate=0.01, checkpoint_every=4, validate_every=5)
LISTOPS = DataSettings(
    source="listops", train_size=31, validation_size=11, test_size=13, min_length=4, max_length=19, max_depth=3
)
RECIPE = Recipe(data=LISTOPS, model=MODEL, training=TRAINING)


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return str(path)


def reviews(folder):
    rows = [(f"{word} {i}", label) for i in range(40) for word, label in (("fine", "good"), ("dull", "bad"))]
    return Recipe(
        data=DataSettings(source=write_csv(folder / "reviews.csv", rows), length=9),
        model=replace(MODEL, mechanism="full"),
        training=TrainingSettings(steps=40, batch_size=7, learning_rate=0.01),
    )


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def interrupt_at(at):
    def on_step(step, loss, seconds):
        if step == at:
            os.kill(os.getpid(), signal.SIGINT)

    return on_step

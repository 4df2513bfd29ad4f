"""What several processes do together in one start, as each start costs seconds: `python processes.py OUT`.

Each job trains and returns what is compared with one process that has the same global batch.
"""

import os
import signal
import sys
from pathlib import Path

import mechanism_toy
import torch
from small_toy import Toy

from saccade.nn.losses import Loss
from saccade.training import Interrupted, TrainingSettings, train

TOY = TrainingSettings(steps=5, learning_rate=0.05)
ACCUMULATED = TrainingSettings(steps=4, learning_rate=0.05, accumulate=2)


def toy_model():
    model = Toy().model()
    model[1].p = 0.0
    return model


def interrupted(out):
    """Ctrl-C to process 1 stops both; then the run is resumed."""

    def on_step(step, loss, seconds):
        if step == 3 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGINT)

    toy, model, stopped = Toy(), toy_model(), None
    try:
        train(model, toy.loss, toy.batches, TOY, out / "run", on_step=on_step, quiet=True)
    except Interrupted as stop:
        stopped = stop.step
    model = toy_model()
    train(model, toy.loss, toy.batches, TOY, out / "run", resume=True, quiet=True)
    return {"stopped": stopped, "weights": model.state_dict()}


def unequal(start):
    """Batches of 1 to 5 examples; of two in a row, which two processes take, none has the other's size."""
    for number, (x, labels) in enumerate(Toy().batches(start), start):
        size = 1 + number % 5
        yield x[:size], labels[:size]


def counted(out, settings=ACCUMULATED):
    model, losses = toy_model(), []
    train(model, Toy().loss, unequal, settings, quiet=True, on_step=lambda step, loss, _: losses.append(loss))
    return {"losses": losses, "weights": model.state_dict()}


def mechanisms(out, settings=mechanism_toy.SETTINGS):
    model = mechanism_toy.model()
    train(model, mechanism_toy.loss, mechanism_toy.batches, settings, quiet=True)
    return {"weights": model.state_dict()}


def not_finite(out):
    """NaN in process 1 only ends both, at the same step, before any weight has changed."""
    toy, steps = Toy(), []

    def loss(model, batch):
        found, broken = toy.loss(model, batch), len(steps) == 2 and os.environ["RANK"] == "1"
        return Loss(found.sum * float("nan") if broken else found.sum, found.count)

    try:
        train(toy_model(), loss, toy.batches, TOY, quiet=True, on_step=lambda step, *_: steps.append(step))
    except FloatingPointError as error:
        return {"message": str(error), "steps": steps}
    return {}


if __name__ == "__main__":
    out = Path(sys.argv[1])
    found = {job.__name__: job(out) for job in (interrupted, counted, mechanisms, not_finite)}
    torch.save(found, out / f"found-{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()

"""An encoder of mechanisms that learn, choose or share, and batches for it: for tests and the processes they start."""

import torch

from saccade.attention.record import Record
from saccade.nn import Encoder
from saccade.nn.auxiliary import with_auxiliary
from saccade.nn.losses import Loss
from saccade.training import TrainingSettings

MECHANISMS = [
    "lsh(bucket=4, rounds=2)",
    "routing(clusters=4, decay=0.9, commitment=0.1)",
    "sinkhorn(block=5, gumbel=0)",
    "linformer(rank=4, max_length=40, sharing='layerwise')",
    "compressed",
    "performer(features=6, redraw=2)",
    "linformer(rank=4, max_length=40, sharing='layerwise')",
    "mixed([('routing(clusters=3, shared_qk=True)', 1), ('full(score=\\'additive\\')', 1)])",
]
SETTINGS = TrainingSettings(steps=4, learning_rate=0.01, accumulate=2)


def model():
    torch.manual_seed(3)
    return Encoder(8, 2, len(MECHANISMS), 12, mechanism=MECHANISMS).double()


def batches(start):
    number = start
    while True:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(2, 23, 8, generator=generator, dtype=torch.float64)
        yield x, torch.arange(23) < torch.tensor([[23], [17]])
        number += 1


def loss(model, batch):
    record, (x, key_mask) = Record("losses"), batch
    out = model(x, key_mask, record=record)
    errors = (out - x.flip(1)).square().mean(2)[key_mask]
    return with_auxiliary(Loss(errors.sum(), torch.tensor(len(errors))), record["losses"])

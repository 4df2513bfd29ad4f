"""Batches: an order that a seed and an epoch fix, and padding on the right.

The order never depends on what was read before, so a run that stops in the middle of an epoch goes on with
exactly the batches it would have seen: `batches(..., start=i)` and `endless(..., start=step)` skip without building
anything.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from saccade.data.labelled import Split
from saccade.errors import must_be
from saccade.shapes import Bool, Int, Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples side by side.

    Attributes:
        tokens: int64, padded on the right to the longest example of the batch.
        key_mask: True at a real token.
        labels: the class of each example.
    """

    tokens: Int[Tensor, "b n"]
    key_mask: Bool[Tensor, "b n"]
    labels: Int[Tensor, " b"]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return Batch(self.tokens.to(device), self.key_mask.to(device), self.labels.to(device))


def collate(split: Split, rows: Sequence[int], pad_id: int) -> Batch:
    """The examples `rows` of a split as one batch."""
    sequences = [split.sequences[row] for row in rows]
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    tokens = torch.full((len(rows), int(lengths.max())), pad_id)
    for line, sequence in zip(tokens, sequences, strict=True):
        line[: len(sequence)] = sequence
    return Batch(tokens, torch.arange(tokens.shape[1]) < lengths[:, None], split.labels[list(rows)])


def order(examples: int, seed: int, epoch: int) -> list[int]:
    """The order of one epoch, a function of its arguments and of nothing else."""
    rows = list(range(examples))
    random.Random(f"{seed} {epoch}").shuffle(rows)
    return rows


def count(split: Split, batch_size: int) -> int:
    """Batches in an epoch, the last and smaller one included.

    Raises:
        ValueError: if the batch size is less than 1 or the split is empty.
    """
    if batch_size < 1:
        raise ValueError(must_be("batch_size", "at least 1", batch_size))
    if not len(split):
        raise ValueError(must_be("split", "not empty", len(split)))
    return -(-len(split) // batch_size)


def batches(
    split: Split,
    batch_size: int,
    pad_id: int,
    *,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    start: int = 0,
) -> Iterator[Batch]:
    """The batches of one epoch, each example once.

    Args:
        split: the examples.
        batch_size: examples in a batch; the last batch may have fewer.
        pad_id: what stands behind the end of a shorter example, `Vocabulary.pad_id`.
        seed: with `epoch`, what the order is drawn from.
        epoch: how often the examples were seen before.
        shuffle: whether to draw an order; else the examples come as they stand.
        start: the first batch wanted; those before it are skipped at no cost.

    Raises:
        ValueError: if the batch size is less than 1 or the split is empty.
    """
    total = count(split, batch_size)
    rows = order(len(split), seed, epoch) if shuffle else range(len(split))
    return (collate(split, rows[i * batch_size : (i + 1) * batch_size], pad_id) for i in range(start, total))


def endless(split: Split, batch_size: int, pad_id: int, *, seed: int = 0, start: int = 0) -> Iterator[Batch]:
    """Epoch after epoch of shuffled batches, from the batch of step `start` on. Arguments as in `batches`."""
    epoch, first = divmod(start, count(split, batch_size))
    while True:
        yield from batches(split, batch_size, pad_id, seed=seed, epoch=epoch, start=first)
        epoch, first = epoch + 1, 0

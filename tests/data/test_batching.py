from itertools import chain, islice

import pytest
import torch

from saccade.data.batching import batches, collate, endless, order
from saccade.data.labelled import Split

PAD = 99


def numbered(examples: int) -> Split:
    """Example i is i repeated `1 + i % 5` times, with label i."""
    sequences = tuple(torch.full((1 + i % 5,), i, dtype=torch.int16) for i in range(examples))
    return Split(sequences, torch.arange(examples))


def labels(found) -> list[list[int]]:
    return [batch.labels.tolist() for batch in found]


def test_padding_is_on_the_right_and_masked():
    batch = collate(numbered(7), [2, 0, 3], PAD)
    assert batch.tokens.tolist() == [[2, 2, 2, PAD], [0, PAD, PAD, PAD], [3, 3, 3, 3]]
    assert batch.key_mask.tolist() == [[True, True, True, False], [True, False, False, False], [True] * 4]
    assert batch.labels.tolist() == [2, 0, 3]
    assert batch.tokens.dtype == batch.labels.dtype == torch.int64
    assert batch.key_mask.dtype == torch.bool
    assert len(batch) == 3


def test_a_batch_moves_as_a_whole():
    batch = collate(numbered(7), [2, 0], PAD).to("meta")
    assert {batch.tokens.device.type, batch.key_mask.device.type, batch.labels.device.type} == {"meta"}
    assert batch.tokens.shape == batch.key_mask.shape == (2, 3)


def test_an_epoch_has_every_example_once_and_a_smaller_last_batch():
    found = labels(batches(numbered(17), 5, PAD, seed=3))
    assert [len(batch) for batch in found] == [5, 5, 5, 2]
    seen = list(chain.from_iterable(found))
    assert sorted(seen) == list(range(17)) != seen


def test_without_shuffling_the_examples_come_as_they_stand():
    assert labels(batches(numbered(5), 2, PAD, shuffle=False, epoch=3)) == [[0, 1], [2, 3], [4]]


def test_the_order_is_the_same_on_every_machine():
    assert order(11, seed=3, epoch=5) == [8, 4, 5, 7, 9, 2, 0, 6, 10, 1, 3]


def test_the_order_depends_on_seed_and_epoch_and_nothing_else():
    torch.manual_seed(1)
    first = order(23, seed=0, epoch=1)
    torch.manual_seed(2)
    assert order(23, seed=0, epoch=1) == first
    others = [order(23, seed, epoch) for seed, epoch in [(0, 0), (1, 0), (1, 1), (0, 11), (0, 2)]]
    assert all(other != first for other in others)
    # "1 11" and "11 1" must not be drawn from the same number.
    assert order(23, seed=1, epoch=11) != order(23, seed=11, epoch=1) != order(23, seed=1, epoch=111)


@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_a_started_epoch_goes_on_with_the_same_batches(start):
    whole = labels(batches(numbered(17), 5, PAD, seed=3, epoch=2))
    assert labels(batches(numbered(17), 5, PAD, seed=3, epoch=2, start=start)) == whole[start:]


@pytest.mark.parametrize("start", [0, 3, 4, 5, 13])
def test_an_endless_stream_goes_on_with_the_same_batches(start):
    split = numbered(17)
    whole = [found for epoch in range(5) for found in labels(batches(split, 5, PAD, seed=3, epoch=epoch))]
    assert labels(islice(endless(split, 5, PAD, seed=3, start=start), 7)) == whole[start : start + 7]


def test_skipping_reads_no_example():
    class Untouched(tuple):
        def __getitem__(self, row):
            raise AssertionError(f"example {row} was read")

    split = numbered(17)
    object.__setattr__(split, "sequences", Untouched(split.sequences))
    assert list(batches(split, 5, PAD, start=4)) == []
    with pytest.raises(AssertionError, match="was read"):
        next(batches(split, 5, PAD, start=3))


@pytest.mark.parametrize("make", [batches, endless])
def test_what_makes_no_batches_is_refused(make):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        next(make(numbered(3), 0, PAD))
    with pytest.raises(ValueError, match="split must be not empty"):
        next(make(numbered(0), 2, PAD))

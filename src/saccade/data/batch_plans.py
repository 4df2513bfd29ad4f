"""Which examples make a batch: so many of them, or so many tokens with what pads them.

A plan is a list of rows, one entry a batch, and a function of its arguments alone: a run that goes on reads what it
would have read. With batches by tokens, examples of like lengths (within a tenth) come together in a drawn order, and
the batches come in a drawn order too. A plan costs a sort of the lengths, once an epoch.
"""

from collections.abc import Callable, Iterator, Sequence

import torch

from saccade.data.batching import order
from saccade.errors import must_be, whole_number
from saccade.shapes import Int, Tensor

# Lengths within a bucket differ by this factor at most, so that no more than a tenth of a batch is padding.
WIDTH = 1.1

Plan = list[Int[Tensor, " _"]]


def by_examples(examples: int, batch_size: int, *, seed: int = 0, epoch: int = 0, shuffle: bool = True) -> Plan:
    """So many examples a batch; the last may have fewer.

    Args:
        examples: how many there are.
        batch_size: how many go together.
        seed: with `epoch`, what the order is drawn from.
        epoch: how often the examples were seen before.
        shuffle: whether to draw an order; else the examples come as they stand.

    Raises:
        ValueError: if the batch size is less than 1 or there are no examples.
    """
    whole_number("batch_size", batch_size)
    whole_number("examples", examples)
    rows = torch.tensor(order(examples, seed, epoch)) if shuffle else torch.arange(examples)
    return list(rows.split(batch_size))


def by_tokens(
    lengths: Int[Tensor, " n"], batch_tokens: int, *, seed: int = 0, epoch: int = 0, shuffle: bool = True
) -> Plan:
    """Batches of at most so many tokens, padding counted: rows times the longest of them.

    There are as many batches in every epoch.

    Args:
        lengths: of the examples; of pairs, the longer side of each.
        batch_tokens: the most in a batch.
        seed: with `epoch`, what the orders are drawn from.
        epoch: how often the examples were seen before.
        shuffle: whether to draw orders; else the shortest come first, equal ones as they stand.

    Raises:
        ValueError: if there are no examples, or one is longer than a batch; it is named by its row, from 0.
    """
    whole_number("examples", len(lengths))
    longest = int(lengths.argmax())
    if lengths[longest] > batch_tokens:
        least = f"at least {int(lengths[longest]):,}, the length of example {longest:,}"
        raise ValueError(must_be("batch_tokens", least, batch_tokens))
    drawn = torch.tensor(order(len(lengths), seed, epoch)) if shuffle else torch.arange(len(lengths))
    buckets = _buckets(lengths) if shuffle else lengths
    ordered = drawn[buckets[drawn].argsort(stable=True)]
    batches: Plan = []
    rest = ordered[:0]
    for bucket in ordered.split(buckets[ordered].unique_consecutive(return_counts=True)[1].tolist()):
        # What did not fill a batch goes on to the next longer ones, so that only the last batch is small.
        waiting = torch.cat([rest, bucket])
        size = batch_tokens // max(1, int(lengths[bucket].max()))
        full = len(waiting) // size * size
        batches += waiting[:full].split(size) if full else ()
        rest = waiting[full:]
    batches += [rest] if len(rest) else []
    return [batches[i] for i in order(len(batches), seed + 1, epoch)] if shuffle else batches


def endless(plan: Callable[[int], Sequence[Int[Tensor, " _"]]], start: int = 0) -> Iterator[Int[Tensor, " _"]]:
    """Epoch after epoch of a plan.

    Args:
        plan: the batches of an epoch, as many in each.
        start: the first step wanted; those before it are skipped without being read.
    """
    batches = plan(0)
    epoch, first = divmod(start, len(batches))
    while True:
        yield from (batches if epoch == 0 else plan(epoch))[first:]
        epoch, first = epoch + 1, 0


def _buckets(lengths: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """The number of the bucket of each length; longer ones have higher numbers."""
    return (lengths.clamp(min=1).double().log() / torch.tensor(WIDTH).double().log()).floor().long()

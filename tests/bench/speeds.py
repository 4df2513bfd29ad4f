"""Speeds as a benchmark would have found them."""

from saccade.attention import Cost
from saccade.bench.accuracy import DEFINITION, ITSELF
from saccade.bench.speed import Row, Setting, Speeds


def measured(mechanism, length, seconds, computed=100, rounds=3, **options):
    """A row whose rounds differ by 1 %; forward takes a third of the whole."""
    both = tuple(seconds * (1 + turn / 100) for turn in range(rounds))
    against = ITSELF if mechanism == "linear" else DEFINITION
    row = Row(
        mechanism,
        length,
        Cost(computed, 0, 0),
        "done",
        forward=tuple(each / 3 for each in both),
        both=both,
        peak_bytes=7_000_000,
        error=3e-7,
        against=against,
    )
    return Row(**{**vars(row), **options})


def speeds(*rows, **options):
    lengths = tuple(dict.fromkeys(row.length for row in rows))
    return Speeds(Setting(lengths=lengths, **options), {(row.length, row.mechanism): row for row in rows})

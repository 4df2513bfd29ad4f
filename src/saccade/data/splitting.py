"""Who goes where: splits that a hash of the content draws, the same on every machine and in every process."""

import hashlib
from collections.abc import Collection, Iterable, Mapping

SPLITS = ("train", "validation", "test")
"""What is learned from, what is chosen by, and what is reported on."""

HELD_OUT = 0.1
"""The share of its source that a split is drawn from where it has no file of its own."""


def rank(seed: int, content: bytes) -> bytes:
    """A number for sorting that looks random and depends on the seed and the content alone."""
    return hashlib.blake2b(b"%d " % seed + content, digest_size=16).digest()


def partition(weights: Iterable[int], shares: Mapping[str, float]) -> list[str]:
    """Give each item, in order, to one of the splits so that their weights come close to their shares.

    As long as a split is empty it comes first, in the order of `shares`: as many items as splits are enough to
    have something in each.

    Args:
        weights: how much each item counts, such as the passages of a file; at least 1.
        shares: each split's share of the whole weight; together 1.

    Returns:
        The split of each item.
    """
    have = dict.fromkeys(shares, 0)
    chosen: list[str] = []
    for weight in weights:
        lacking = {name: shares[name] * (sum(have.values()) + weight) - have[name] for name in shares}
        empty = [name for name in shares if not have[name]]
        chosen.append(empty[0] if empty else max(shares, key=lacking.__getitem__))
        have[chosen[-1]] += weight
    return chosen


def shares_with(held_out: Collection[str]) -> dict[str, float]:
    """The shares of a source that the splits to hold out of it get, and what is left to train on."""
    return {"train": 1 - HELD_OUT * len(held_out), **dict.fromkeys(held_out, HELD_OUT)}


def place(seed: int, content: bytes, shares: Mapping[str, float]) -> str:
    """The split of one example by its content alone: equal ones are never on two sides, nothing has to be held.

    The splits come out near their shares, not at them; in a few examples one may be empty.

    Args:
        seed: draws another split.
        content: what the example is.
        shares: each split's share; together 1.
    """
    point = int.from_bytes(rank(seed, content)[:7], "big") / 2**56
    for name, share in shares.items():
        if point < share:
            return name
        point -= share
    return list(shares)[-1]

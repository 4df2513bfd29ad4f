"""Who goes where: splits that a hash of the content draws, the same on every machine and in every process."""

import hashlib
from collections.abc import Iterable, Mapping


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

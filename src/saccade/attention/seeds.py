"""Where draws that must repeat come from: a generator of our own for each key, such as (seed, layer, head), or a hash.

The same on every machine and every data-parallel worker; torch's global generator is left alone.
"""

from hashlib import blake2b

import torch

from saccade.shapes import Int, Tensor


def generator_of(*key: int) -> torch.Generator:
    """A CPU generator that nothing but the key decides."""
    seed = int.from_bytes(blake2b(repr(key).encode(), digest_size=7).digest(), "little")
    return torch.Generator(device="cpu").manual_seed(seed)


def hashed(*words: int | Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """A number from 0 to 2**62 - 1 that nothing but the words decides, elementwise (SplitMix64, Steele et al. 2014)."""
    mixed, *rest = (torch.as_tensor(word, dtype=torch.long) for word in words)
    for word in rest:
        mixed = mixed + word * -7046029254386353131 + -7046029254386353131
        mixed = (mixed ^ ((mixed >> 30) & ((1 << 34) - 1))) * -4658895280553007687
        mixed = (mixed ^ ((mixed >> 27) & ((1 << 37) - 1))) * -7723592293110705685
        mixed = mixed ^ ((mixed >> 31) & ((1 << 33) - 1))
    return mixed & ((1 << 62) - 1)

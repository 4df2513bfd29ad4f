"""Where what is drawn once comes from: a generator of our own for each key, such as (seed, layer, head).

The same on every machine and every data-parallel worker; torch's global generator is left alone.
"""

from hashlib import blake2b

import torch


def generator_of(*key: int) -> torch.Generator:
    """A CPU generator that nothing but the key decides."""
    seed = int.from_bytes(blake2b(repr(key).encode(), digest_size=7).digest(), "little")
    return torch.Generator(device="cpu").manual_seed(seed)

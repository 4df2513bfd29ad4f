"""Which random directions are in use: drawn from the seed, the layer, the head and the number of the draw alone.

So a pool of many draws takes no memory, and every data-parallel worker makes the same choice at the same step.
"""

import torch

from saccade.attention.seeds import generator_of
from saccade.shapes import Float, Tensor

MATRICES, CHOICES = 0, 1
"""What a generator is for."""


def drawn(seed: int, layer: int, draws: list[int], directions: int, dim: int) -> Float[Tensor, "g f d"]:
    """Standard normal directions: of each head its own, from the draw of that number."""
    generators = (generator_of(seed, layer, head, MATRICES, draw) for head, draw in enumerate(draws))
    kind = {"dtype": torch.float32, "device": "cpu"}
    return torch.stack([torch.randn(directions, dim, generator=each, **kind) for each in generators])


def chosen(seed: int, layer: int, heads: int, step: int, pool: int) -> list[int]:
    """The draw that each head uses behind so many steps: the first before any."""
    if not step:
        return [0] * heads
    generators = (generator_of(seed, layer, head, CHOICES, step) for head in range(heads))
    return [int(torch.randint(pool, (), generator=each, device="cpu")) for each in generators]

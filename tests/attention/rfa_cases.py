"""Layers of random feature attention for their tests, masks for 13 keys, and what their oracles need of a layer."""

import torch
from mechanism_cases import D, E, G, H

from saccade.attention import MECHANISMS

N = 13
MASKS = {
    "none": None,
    "right": [[True] * 9 + [False] * 4, [True] * 13],
    "left": [[False] * 3 + [True] * 10, [True] * 13],
    "holes": [[True, False] * 6 + [True], [False, True] * 6 + [False]],
    "empty": [[False] * 13, [True] * 13],
}


def mask_of(name):
    return None if MASKS[name] is None else torch.tensor(MASKS[name])


def rfa(**options):
    """In double precision, with scales that no build begins with."""
    layer = MECHANISMS["rfa"](**{"features": 32, "temperature": 0.8, "seed": 5} | options).build(H, D, G, E).double()
    with torch.no_grad():
        layer.sigma.add_(0.3 * torch.randn(G, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    return layer


def as_oracle(layer):
    """Directions, scales and options as the oracles take them."""
    spec = layer.spec
    return {
        "directions": layer.directions,
        "sigma": layer.sigma.detach(),
        "temperature": spec.temperature,
        "kernel": spec.kernel,
        "least": spec.least_weight,
    }

"""Random directions that are orthogonal in blocks, the same on every machine that draws them from one key.

Source: "Rethinking Attention with Performers" (Choromanski et al. 2020), section 2.4; "How to Generate Random Matrices
from the Classical Compact Groups" (Mezzadri 2007) for the signs.
"""

import torch
from torch import Tensor

from saccade.attention.seeds import generator_of
from saccade.shapes import Float


def drawn_directions(
    key: tuple[int, ...], heads: int, features: int, dim: int, norms: str = "chi"
) -> Float[Tensor, "g f d"]:
    """Directions for each head, in float64 on the CPU.

    Args:
        key: what they are drawn from, together with the number of the head.
        heads: key heads.
        features: rows for each; every `dim` of them are orthogonal.
        dim: numbers of a row.
        norms: `chi`, lengths as of rows of normally distributed numbers, or `sqrt_d`, all as their mean square.
    """
    return torch.stack([_of_one_head((*key, head), features, dim, norms) for head in range(heads)])


def _of_one_head(key: tuple[int, ...], features: int, dim: int, norms: str) -> Float[Tensor, "f d"]:
    generator = generator_of(*key)
    drawn = torch.randn(-(-features // dim), dim, dim, generator=generator, dtype=torch.float64, device="cpu")
    q, r = torch.linalg.qr(drawn)
    # Householder's Q alone leans to one side: with the signs of R on its columns every rotation is as likely.
    rows = (q * r.diagonal(dim1=1, dim2=2).sign()[:, None]).mT.flatten(0, 1)[:features]
    if norms == "sqrt_d":
        return rows * dim**0.5
    lengths = torch.randn(features, dim, generator=generator, dtype=torch.float64, device="cpu").norm(dim=1)
    return rows * lengths[:, None]

"""Between `[b h n d]` and flat tiles `[b * h * tiles, size, d]`, in the order of one part of a layout.

No copy is made where the order is that of the positions and the sequence is whole tiles.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from saccade.attention.layout import Part
from saccade.shapes import Bool, Float, Int, Shaped, Tensor


@dataclass(frozen=True)
class Flat:
    """How the queries and keys of one call lie in the tiles of one part.

    Attributes:
        part: the part.
        examples: batch size.
        heads: query heads.
        key_heads: heads of the keys in tiles: those of the input, or one for each query head where each has an
            order of its own.
        n_q: number of queries.
    """

    part: Part
    examples: int
    heads: int
    key_heads: int
    n_q: int

    @classmethod
    def of(cls, part: Part, q: Float[Tensor, "b h q d"], k: Float[Tensor, "b g k d"]) -> "Flat":
        """For these queries and keys."""
        own_order = part.keys is not None and part.heads > 1
        return cls(part, q.shape[0], q.shape[1], q.shape[1] if own_order else k.shape[1], q.shape[2])

    @property
    def key_tiles(self) -> int:
        """Key tiles of one head."""
        return -(-self.part.n_k // self.part.size)

    def queries(self, x: Float[Tensor, "b h q d"]) -> Float[Tensor, "t s d"]:
        """What belongs to queries, as tiles."""
        return _tiles(_placed(x, self.part.queries), self.part.size, self.part.front)

    def keys(self, x: Shaped[Tensor, "b g k d"]) -> Shaped[Tensor, "t s d"]:
        """What belongs to keys, as tiles."""
        x = x if x.shape[1] == self.key_heads else x.repeat_interleave(self.key_heads // x.shape[1], 1)
        return _tiles(_placed(x, self.part.keys), self.part.size)

    def hidden(self, key_mask: Bool[Tensor, "b k"] | None, key_heads: int) -> Bool[Tensor, "t s"] | None:
        """Which keys are masked, as tiles; what fills up the last one is not."""
        if key_mask is None:
            return None
        return self.keys(~key_mask[:, None, :, None].expand(-1, key_heads, -1, 1))[..., 0]

    def per_query(self, dim: int, fill: float, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "t s d"]:
        """Room for a result of every query, filled for those that see nothing."""
        shape = self.examples * self.heads * self.part.query_tiles, self.part.size, dim
        if self.part.covers:
            return torch.empty(shape, dtype=dtype, device=device)
        return torch.full(shape, fill, dtype=dtype, device=device)

    def from_queries(self, tiles: Float[Tensor, "t s d"]) -> Float[Tensor, "b h q d"]:
        """Back from tiles."""
        whole = tiles.view(self.examples, self.heads, -1, tiles.shape[2])
        return _placed(whole[:, :, self.part.front : self.part.front + self.n_q], _inverse(self.part.queries))

    def from_keys(self, tiles: Float[Tensor, "t s d"], key_heads: int) -> Float[Tensor, "b g k d"]:
        """Back from tiles, summed over the heads that share a key."""
        whole = tiles.view(self.examples, self.key_heads, -1, tiles.shape[2])
        x = _placed(whole[:, :, : self.part.n_k], _inverse(self.part.keys))
        return x if self.key_heads == key_heads else x.unflatten(1, (key_heads, -1)).sum(2)


def _tiles(x: Shaped[Tensor, "b h n d"], size: int, front: int = 0) -> Shaped[Tensor, "t s d"]:
    """Flat tiles, the first and the last filled up with zeros; no copy where they are whole already."""
    end = -(front + x.shape[2]) % size
    x = pad(x, (0, 0, front, end)) if front or end else x
    return x.reshape(-1, size, x.shape[3]).contiguous()  # windows are read by strides


def _placed(x: Shaped[Tensor, "b h n d"], places: Int[Tensor, "b2 h2 n"] | None) -> Shaped[Tensor, "b h n d"]:
    """In another order: at place i what is number `places[i]`."""
    if places is None:
        return x
    places = places.to(x.device)
    if places.shape[:2] == (1, 1):
        return x.index_select(2, places[0, 0])
    return x.gather(2, places[..., None].expand(*x.shape[:2], -1, x.shape[3]))


def _inverse(places: Int[Tensor, "b h n"] | None) -> Int[Tensor, "b h n"] | None:
    return None if places is None else places.argsort(dim=-1)

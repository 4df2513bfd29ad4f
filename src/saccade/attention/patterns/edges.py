"""Attention along the edges of a graph.

Source: graph attention networks (Velickovic et al. 2018), masked to the neighbourhood as in their equation 2.
"""

import torch
from torch import Tensor

from saccade.attention.patterns.carried import CarriesTensor
from saccade.attention.patterns.pattern import Pairs, Scope
from saccade.errors import must_be
from saccade.shapes import Bool, Int


class Edges(CarriesTensor):
    """A query sees the sources of its incoming edges, and itself only along an edge to itself.

    Args:
        edge_index: sources in the first row, targets in the second, as in PyTorch Geometric, `[2 edges]`. An edge
            that is listed twice counts once; edges of positions past the end of a sequence are ignored.

    Raises:
        TypeError: no tensor of integers.
        ValueError: another shape, or a negative position.
    """

    def __init__(self, edge_index: Int[Tensor, "2 edges"]) -> None:
        super().__init__("edge_index", edge_index)
        if edge_index.ndim != 2 or edge_index.shape[0] != 2:
            raise ValueError(must_be("edge_index", "of shape [2 edges]", tuple(edge_index.shape)))
        if edge_index.numel() and int(edge_index.min()) < 0:
            raise ValueError(must_be("edge_index", "made of positions, at least 0", int(edge_index.min())))
        source, target = self.tensor
        nodes = int(self.tensor.max()) + 1 if self.tensor.numel() else 1
        object.__setattr__(self, "_nodes", nodes)
        object.__setattr__(self, "_sorted", torch.unique(target * nodes + source))

    _nodes: int
    _sorted: Int[Tensor, " edges"]

    @property
    def edge_index(self) -> Int[Tensor, "2 edges"]:
        """Sources and targets, as given."""
        return self.tensor

    def sees(self, scope: Scope, at: Pairs) -> Bool[Tensor, "..."]:
        """Whether an edge leads from the key to the query."""
        edges = self._sorted.to(at.q.device)
        if not len(edges):
            return torch.zeros_like(at.q + at.k, dtype=torch.bool)
        inside = (at.q < self._nodes) & (at.k < self._nodes)
        wanted = at.q * self._nodes + at.k
        place = torch.searchsorted(edges, wanted).clamp(max=len(edges) - 1)
        return inside & (edges[place] == wanted)

    def listed(self, scope: Scope) -> Pairs:
        """The edges between queries and keys of the sequence, ordered by query."""
        query, key = self._sorted // self._nodes, self._sorted % self._nodes
        here = (query >= scope.q_start) & (query < scope.q_start + scope.n_q) & (key < scope.n_k)
        query, key = query[here], key[here]
        none = torch.zeros_like(query)
        return Pairs(none, none, query, key)

    @property
    def has_lists(self) -> bool:
        """Always."""
        return True

    def tile_keys(self, scope: Scope, size: int, tiles: Pairs) -> Int[Tensor, "t m"]:
        """Tiles without edges are alike; others are not known to be."""
        width = self._nodes // size + 1
        touched = torch.unique((self._sorted // self._nodes // size) * width + self._sorted % self._nodes // size)
        known = (tiles.q < width) & (tiles.k < width)
        empty = ~known | ~torch.isin(tiles.q * width + tiles.k, touched)
        return torch.arange(1, len(tiles.q) + 1).masked_fill(empty, 0)[:, None]

    def spans(self, scope: Scope, rows: Int[Tensor, " r"], size: int) -> Int[Tensor, "b h r s 2"]:
        """One range for every key tile from which an edge comes."""
        n_tiles = -(-scope.n_k // size) + 1
        pairs = self.listed(scope)
        row = torch.full((scope.end // size + 2,), -1)
        row[rows.clamp(max=len(row) - 1)] = torch.arange(len(rows))
        touched = torch.unique(row[pairs.q // size] * n_tiles + pairs.k // size)
        touched = touched[touched >= 0]
        owner, tile = touched // n_tiles, touched % n_tiles
        count = torch.bincount(owner, minlength=len(rows))
        place = torch.arange(len(owner)) - (count.cumsum(0) - count)[owner]
        spans = torch.zeros(len(rows), int(count.max()) if len(rows) else 0, 2, dtype=torch.long)
        spans[owner, place] = torch.stack([tile, tile + 1], dim=-1)
        return spans[None, None]

"""What the parts of a Synthesizer learn: the second layer of F, or tables of positions, whole or as products.

Source: "Synthesizer: Rethinking Self-Attention" (Tay et al. 2020, arXiv 2005.00743), section 3.

Every part begins with logits of variance one where queries are normally distributed with variance one, as are those
of scaled dot products.

Cost: parameters of `h` heads for N positions: h N d, h N^2, h N^2 (not trained), 2 h sqrt(N) d, 2 h N r, none.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from saccade.attention.mechanisms._synthesizer.chunks import Logits
from saccade.attention.mechanisms._synthesizer.logits import (
    DenseLogits,
    DotLogits,
    LowRankLogits,
    OuterLogits,
    TableLogits,
)
from saccade.attention.seeds import generator_of
from saccade.shapes import Float, Tensor


@dataclass(frozen=True)
class Sizes:
    """What decides how large a part is, and what it draws."""

    heads: int
    head_dim: int
    max_length: int
    block: int
    rank: int
    seed: int
    layer: int


class Part(nn.Module, ABC):
    """One part of the logits.

    Attributes:
        reads: which inputs it reads besides values.
        places: whether it knows the position of a query, so that no query may stand behind `max_length`.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    places: ClassVar[bool] = False

    @abstractmethod
    def logits(self, keys: int) -> Logits:
        """How they are made for so many keys."""

    @abstractmethod
    def given(self, queries: slice, keys: int) -> tuple[Float[Tensor, "h ..."], ...]:
        """What they are made of, for these queries and the first keys."""


class DensePart(Part):
    """The second layer of F(x) = W2 relu(W1 x + b1) + b2, whose first layer is the projection of the queries."""

    reads = ("q",)

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.weight = nn.Parameter(_he_normal(sizes.heads, sizes.head_dim, sizes.max_length))
        self.bias = nn.Parameter(torch.zeros(sizes.heads, sizes.max_length))

    def logits(self, keys: int) -> DenseLogits:
        """A number for each key."""
        return DenseLogits()

    def given(self, queries: slice, keys: int) -> tuple[Tensor, ...]:
        """The columns of the keys."""
        return _first(self.weight, 2, keys), _first(self.bias, 1, keys)


class FactorisedDensePart(Part):
    """Two second layers, whose outputs are repeated and tiled, and multiplied."""

    reads = ("q",)

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.block = sizes.block
        blocks = -(-sizes.max_length // sizes.block)
        self.a_weight = nn.Parameter(_he_normal(sizes.heads, sizes.head_dim, blocks))
        self.a_bias = nn.Parameter(torch.zeros(sizes.heads, blocks))
        self.b_weight = nn.Parameter(_he_normal(sizes.heads, sizes.head_dim, sizes.block))
        self.b_bias = nn.Parameter(torch.zeros(sizes.heads, sizes.block))

    def logits(self, keys: int) -> OuterLogits:
        """A product for each key."""
        return OuterLogits(self.block, keys)

    def given(self, queries: slice, keys: int) -> tuple[Tensor, ...]:
        """Only as many of a as there are blocks of keys; all for an exported graph, whose length is open."""
        blocks = self.a_bias.shape[1] if torch.compiler.is_exporting() else -(-keys // self.block)
        return self.a_weight[..., :blocks], self.a_bias[:, :blocks], self.b_weight, self.b_bias


class RandomPart(Part):
    """A learned table for each head."""

    places = True

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(sizes.heads, sizes.max_length, sizes.max_length).normal_())

    def logits(self, keys: int) -> TableLogits:
        """A number for each pair of positions."""
        return TableLogits()

    def given(self, queries: slice, keys: int) -> tuple[Tensor, ...]:
        """The rows of the queries and the columns of the keys."""
        return (_first(_rows(self.table, queries), 2, keys),)


class FixedPart(Part):
    """A table for each head that is drawn once, from seed, layer and head, and never trained."""

    places = True
    table: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        table = torch.empty(sizes.heads, sizes.max_length, sizes.max_length)
        self.register_buffer("table", table)
        for head, own in enumerate([] if table.is_meta else table):
            own.copy_(_drawn((sizes.seed, sizes.layer, head), own.shape))

    def logits(self, keys: int) -> TableLogits:
        """A number for each pair of positions."""
        return TableLogits()

    def given(self, queries: slice, keys: int) -> tuple[Tensor, ...]:
        """The rows of the queries and the columns of the keys."""
        return (_first(_rows(self.table, queries), 2, keys),)


class FactorisedRandomPart(Part):
    """A learned table that is a product of few columns."""

    places = True

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        shape, scale = (sizes.heads, sizes.max_length, sizes.rank), sizes.rank**-0.25
        self.rows = nn.Parameter(torch.empty(shape).normal_(std=scale))
        self.columns = nn.Parameter(torch.empty(shape).normal_(std=scale))

    def logits(self, keys: int) -> LowRankLogits:
        """A product for each pair of positions."""
        return LowRankLogits()

    def given(self, queries: slice, keys: int) -> tuple[Tensor, ...]:
        """The rows of the queries and those of the keys."""
        return _rows(self.rows, queries), _first(self.columns, 1, keys)


class DotPart(Part):
    """Scaled dot products, which learn nothing."""

    reads = ("q", "k")

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.scale = 1 / math.sqrt(sizes.head_dim)

    def logits(self, keys: int) -> DotLogits:
        """A product for each query and key."""
        return DotLogits(self.scale)

    def given(self, queries: slice, keys: int) -> tuple[Tensor, ...]:
        """Nothing."""
        return ()


PARTS: dict[str, type[Part]] = {
    "dense": DensePart,
    "random": RandomPart,
    "fixed": FixedPart,
    "factorised_dense": FactorisedDensePart,
    "factorised_random": FactorisedRandomPart,
    "dot": DotPart,
}
"""Name and module of every part."""


def numbers_read(part: str, sizes: Sizes, n_q: int, n_k: int) -> int:
    """How many of the learned or drawn numbers of a part a call reads, all heads together."""
    both = -(-n_k // sizes.block) + sizes.block
    return (
        sizes.heads
        * {
            "dense": n_k * (sizes.head_dim + 1),
            "random": n_q * n_k,
            "fixed": n_q * n_k,
            "factorised_dense": both * (sizes.head_dim + 1),
            "factorised_random": (n_q + n_k) * sizes.rank,
            "dot": 0,
        }[part]
    )


def products(part: str, sizes: Sizes, n_q: int, n_k: int) -> tuple[int, int]:
    """Multiplications for the logits of a part: for each pair, and besides those of pairs."""
    of_pair = {"dense": sizes.head_dim, "dot": sizes.head_dim, "factorised_random": sizes.rank}
    factors = sizes.heads * n_q * sizes.head_dim * (-(-n_k // sizes.block) + sizes.block)
    return of_pair.get(part, 0), factors if part == "factorised_dense" else 0


def _he_normal(heads: int, inputs: int, outputs: int) -> Float[Tensor, "h d f"]:
    """Normal, with the variance 2 / inputs (He et al. 2015): a relu lets half of the squares through."""
    return torch.empty(heads, inputs, outputs).normal_(std=math.sqrt(2 / inputs))


def _drawn(key: tuple[int, ...], shape: torch.Size) -> Float[Tensor, "n n"]:
    """Normal, the same for the same key on every machine."""
    return torch.randn(shape, generator=generator_of(*key), device="cpu")


def _first(x: Float[Tensor, "..."], axis: int, count: int) -> Float[Tensor, "..."]:
    return _taken(x, axis, 0, count)


def _taken(x: Float[Tensor, "..."], axis: int, start: int, stop: int) -> Float[Tensor, "..."]:
    if torch.compiler.is_exporting():  # a slice of everything is another view than one of less: no graph fits both
        return x.index_select(axis, torch.arange(start, stop, device=x.device))
    # A slice of everything is left out: its gradient would be copied into zeros of the same size.
    return x if (start, stop) == (0, x.shape[axis]) else x.narrow(axis, start, stop - start)


def _rows(table: Float[Tensor, "h n f"], queries: slice) -> Float[Tensor, "h q f"]:
    return _taken(table, 1, queries.start, queries.stop)

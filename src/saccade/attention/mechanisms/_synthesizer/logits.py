"""The parts of a Synthesizer's logits for one chunk of queries, and where their gradient goes.

Source: "Synthesizer: Rethinking Self-Attention" (Tay et al. 2020, arXiv 2005.00743), section 3.

Cost for each pair: d products for the dense part and the dot product, r for the factorised random one, and a few
numbers moved for the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from saccade.attention.mechanisms._synthesizer.chunks import Chunk, Given, Logits, Share
from saccade.shapes import Float, Tensor


class DenseLogits(Logits):
    """W2 relu(q) + b2, of which key j takes number j. Given W2 `[g s d k]` and b2 `[g s k]`."""

    def whole(
        self, q: Float[Tensor, "b g s q d"] | None, k: Float[Tensor, "b g k d"] | None, given: Given
    ) -> Float[Tensor, "*#b g s q k"]:
        """As the formula."""
        assert q is not None
        return q.relu() @ given[0] + given[1][:, :, None]

    def add(self, chunk: Chunk, logits: Float[Tensor, "b g s q k"], given: Given, share: Share) -> None:
        """One product for each head."""
        weight, bias = (x[..., : chunk.end] for x in given)
        hidden = _hidden(chunk) * share
        logits.flatten(0, 2).baddbmm_(hidden.flatten(0, 2), _each(weight, len(hidden)))
        logits.add_(bias[:, :, None] * share)

    def backward(
        self,
        chunk: Chunk,
        grad: Float[Tensor, "b g s q k"],
        given: Given,
        share: Share,
        grads: Chunk,
        learned: Sequence[Tensor | None],
    ) -> Tensor:
        """One product for the queries and one for W2."""
        weight, bias = (x[..., : chunk.end] for x in given)
        hidden, columns = _hidden(chunk), grad.sum((0, 3))
        back = torch.bmm(grad.flatten(0, 2), _each(weight, len(hidden)).mT).view(hidden.shape)
        _add_products(learned[0], hidden, grad, share)
        if learned[1] is not None:
            learned[1][..., : chunk.end].add_(columns * share)
        total = (back * hidden).sum() + (columns * bias).sum()
        _to_queries(chunk, grads, back, share)
        return total


@dataclass(frozen=True)
class OuterLogits(Logits):
    """a_i b_j for key i * block + j, with a = A relu(q) + a0 and b alike. Given A, a0, B and b0."""

    block: int
    keys: int

    def whole(
        self, q: Float[Tensor, "b g s q d"] | None, k: Float[Tensor, "b g k d"] | None, given: Given
    ) -> Float[Tensor, "*#b g s q k"]:
        """All blocks, and the last one cut off."""
        assert q is not None
        one, other = self._factors(q.relu(), given)
        whole = (one[..., None] * other[..., None, :]).flatten(-2)
        return whole.index_select(-1, torch.arange(self.keys, device=whole.device))

    def add(self, chunk: Chunk, logits: Float[Tensor, "b g s q k"], given: Given, share: Share) -> None:
        """Each a is repeated, b is tiled."""
        one, other = self._factors(_hidden(chunk), given)
        one = one[..., : self._blocks(chunk)] * share
        products = chunk.work.take("products", *one.shape, self.block)
        torch.mul(one[..., None], other[..., None, :], out=products)
        logits.add_(products.flatten(-2)[..., : chunk.end])

    def backward(
        self,
        chunk: Chunk,
        grad: Float[Tensor, "b g s q k"],
        given: Given,
        share: Share,
        grads: Chunk,
        learned: Sequence[Tensor | None],
    ) -> Tensor:
        """The gradient in blocks, times the other factor."""
        hidden, blocks = _hidden(chunk), self._blocks(chunk)
        one, other = self._factors(hidden, given)
        whole = chunk.work.take("products", *one.shape[:-1], blocks * self.block)
        whole[..., : chunk.end] = grad
        whole[..., chunk.end :] = 0
        tiles = whole.view(-1, blocks, self.block)
        to_one = torch.zeros_like(one)
        to_one[..., :blocks] = torch.bmm(tiles, other.reshape(-1, self.block, 1)).view(*one.shape[:-1], blocks)
        to_other = torch.bmm(one[..., :blocks].reshape(-1, 1, blocks), tiles).view(other.shape)
        back = torch.zeros_like(hidden)
        for number, factor in ((0, to_one), (2, to_other)):
            back.add_(factor @ given[number].mT)
            _add_products(learned[number], hidden, factor, share)
            if (bias := learned[number + 1]) is not None:
                bias.add_(factor.sum((0, 3)) * share)
        _to_queries(chunk, grads, back, share)
        return (to_one * one).sum()

    def _blocks(self, chunk: Chunk) -> int:
        """How many the keys of a chunk fill."""
        return -(-chunk.end // self.block)

    def _factors(self, hidden: Float[Tensor, "b g s q d"], given: Given) -> tuple[Tensor, Tensor]:
        """Both, `[b g s q i]` and `[b g s q j]`."""
        one, one_bias, other, other_bias = given
        return hidden @ one + one_bias[:, :, None], hidden @ other + other_bias[:, :, None]


class TableLogits(Logits):
    """One number for each pair of positions, whatever stands there. Given a table `[g s q k]`."""

    def whole(
        self, q: Float[Tensor, "b g s q d"] | None, k: Float[Tensor, "b g k d"] | None, given: Given
    ) -> Float[Tensor, "*#b g s q k"]:
        """The table."""
        return given[0]

    def add(self, chunk: Chunk, logits: Float[Tensor, "b g s q k"], given: Given, share: Share) -> None:
        """The same for all examples."""
        table = given[0][:, :, chunk.rows, : chunk.end]
        logits.add_(torch.mul(table, share, out=chunk.work.take("table", *table.shape)))

    def backward(
        self,
        chunk: Chunk,
        grad: Float[Tensor, "b g s q k"],
        given: Given,
        share: Share,
        grads: Chunk,
        learned: Sequence[Tensor | None],
    ) -> Tensor:
        """Summed over the examples."""
        table, back = given[0][:, :, chunk.rows, : chunk.end], _over_examples(grad)
        if learned[0] is not None:
            learned[0][:, :, chunk.rows, : chunk.end].add_(back * share)
        return (back * table).sum()


class LowRankLogits(Logits):
    """A table that is a product of few columns. Given R1 `[g s q r]` and R2 `[g s k r]`."""

    def whole(
        self, q: Float[Tensor, "b g s q d"] | None, k: Float[Tensor, "b g k d"] | None, given: Given
    ) -> Float[Tensor, "*#b g s q k"]:
        """The product."""
        return given[0] @ given[1].mT

    def add(self, chunk: Chunk, logits: Float[Tensor, "b g s q k"], given: Given, share: Share) -> None:
        """Made once for all examples."""
        rows, columns = given[0][:, :, chunk.rows], given[1][:, :, : chunk.end]
        table = chunk.work.take("table", *logits.shape[1:])
        torch.bmm((rows * share).flatten(0, 1), columns.flatten(0, 1).mT, out=table.flatten(0, 1))
        logits.add_(table)

    def backward(
        self,
        chunk: Chunk,
        grad: Float[Tensor, "b g s q k"],
        given: Given,
        share: Share,
        grads: Chunk,
        learned: Sequence[Tensor | None],
    ) -> Tensor:
        """Two products with few columns."""
        rows, columns = given[0][:, :, chunk.rows], given[1][:, :, : chunk.end]
        back = _over_examples(grad)
        to_rows = back @ columns
        if learned[0] is not None:
            learned[0][:, :, chunk.rows].add_(to_rows * share)
        if learned[1] is not None:
            learned[1][:, :, : chunk.end].add_(back.mT @ rows * share)
        return (to_rows * rows).sum()


@dataclass(frozen=True)
class DotLogits(Logits):
    """q . k times a scale."""

    scale: float

    def whole(
        self, q: Float[Tensor, "b g s q d"] | None, k: Float[Tensor, "b g k d"] | None, given: Given
    ) -> Float[Tensor, "*#b g s q k"]:
        """All products."""
        assert q is not None
        assert k is not None
        return q @ k[:, :, None].mT * self.scale

    def add(self, chunk: Chunk, logits: Float[Tensor, "b g s q k"], given: Given, share: Share) -> None:
        """One product for each key head."""
        assert chunk.q is not None
        assert chunk.k is not None
        queries = (chunk.q * (share * self.scale)).flatten(2, 3)
        logits.flatten(2, 3).flatten(0, 1).baddbmm_(queries.flatten(0, 1), chunk.k.flatten(0, 1).mT)

    def backward(
        self,
        chunk: Chunk,
        grad: Float[Tensor, "b g s q k"],
        given: Given,
        share: Share,
        grads: Chunk,
        learned: Sequence[Tensor | None],
    ) -> Tensor:
        """One product for the queries and one for the keys."""
        assert chunk.q is not None
        assert chunk.k is not None
        assert grads.q is not None
        assert grads.k is not None
        flat, share = grad.flatten(2, 3).flatten(0, 1), share * self.scale
        keys, queries = chunk.k.flatten(0, 1), (chunk.q * share).flatten(2, 3).flatten(0, 1)
        grads.k.view(keys.shape).baddbmm_(flat.mT, queries)
        back = torch.bmm(flat, keys).view(chunk.q.shape)
        grads.q.add_(back * share)
        return (back * chunk.q).sum() * self.scale


def _hidden(chunk: Chunk) -> Float[Tensor, "b g s q d"]:
    """relu(q)."""
    assert chunk.q is not None
    return chunk.q.clamp(min=0)


def _to_queries(chunk: Chunk, grads: Chunk, back: Float[Tensor, "b g s q d"], share: Share) -> None:
    """Through the relu. Spoils the gradient that comes."""
    assert chunk.q is not None
    assert grads.q is not None
    grads.q.add_(back.masked_fill_(chunk.q <= 0, 0).mul_(share))


def _each(weight: Float[Tensor, "g s d k"], examples: int) -> Float[Tensor, "m d k"]:
    """For every example; a view where there is one."""
    return weight.expand(examples, -1, -1, -1, -1).flatten(0, 2)


def _over_examples(grad: Float[Tensor, "b g s q k"]) -> Float[Tensor, "g s q k"]:
    """Their sum."""
    return grad[0] if len(grad) == 1 else grad.sum(0)


def _add_products(
    into: Float[Tensor, "g s d n"] | None,
    hidden: Float[Tensor, "b g s q d"],
    grad: Float[Tensor, "b g s q k"],
    share: Share,
) -> None:
    """Products of the queries of each head, over all examples, to the first columns."""
    if into is None:
        return
    rows, columns = (x.permute(1, 2, 0, 3, 4).flatten(2, 3).flatten(0, 1) for x in (hidden * share, grad))
    part = into[..., : grad.shape[-1]]
    part.view(-1, *part.shape[2:]).baddbmm_(rows.mT, columns)

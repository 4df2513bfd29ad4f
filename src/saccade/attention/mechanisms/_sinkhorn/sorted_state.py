"""The decoding state of Sinkhorn attention: all tokens, and the sorted block that stands beside the present one.

A sorted block is mixed from finished blocks when a block begins, and serves until the next one does. What the rows of
the balancing before it have taken is kept as sums, so that no row is ever balanced again.

Cost: a step copies what is kept and looks at two blocks; one in `block` steps reads all tokens to sort them.
"""

import math
from typing import NamedTuple

import torch

from saccade.attention.mechanisms._grouped_heads import for_queries
from saccade.attention.mechanisms._key_values import EVERYTHING, KeyValues, joined, key_values
from saccade.attention.mechanisms._sinkhorn.sorting import normalised
from saccade.shapes import Bool, Float, Tensor


class Sorted(NamedTuple):
    """What a step needs to know of the tokens before it: O(n) numbers.

    Attributes:
        keys: of all tokens, zero where hidden.
        values: of all tokens, zero where hidden.
        key_mask: True for real tokens.
        total: the sum of all queries; with linear scores that of all keys behind it.
        taken: what the blocks begun so far have taken of each of them, for each turn of the balancing.
        sorted_keys: keys of the sorted block.
        sorted_values: its values.
        mass: the share of real tokens at each of its positions; zero where there is no earlier block.
    """

    keys: Float[Tensor, "b g n d"]
    values: Float[Tensor, "b g n e"]
    key_mask: Bool[Tensor, "b n"]
    total: Float[Tensor, "b h f"]
    taken: Float[Tensor, "b h turns j"]
    sorted_keys: Float[Tensor, "b h t d"]
    sorted_values: Float[Tensor, "b h t e"]
    mass: Float[Tensor, "b h t"]

    @property
    def length(self) -> int:
        """How many tokens there are."""
        return self.key_mask.shape[1]

    def finished(self, block: int) -> KeyValues:
        """The tokens of the blocks before the present one."""
        end = max(0, self.length - 1) // block * block
        return KeyValues(self.keys[:, :, :end], self.values[:, :, :end], self.key_mask[:, :end])

    def extended(self, k: Tensor, v: Tensor, key_mask: Tensor | None, total: Float[Tensor, "b h f"]) -> "Sorted":
        """With further tokens, whose queries (and keys) sum to `total`."""
        tokens = joined(EVERYTHING, KeyValues(*self[:3]), key_values(k, v, key_mask))
        return self._replace(keys=tokens.keys, values=tokens.values, key_mask=tokens.key_mask, total=self.total + total)

    def sorted(self, order: Float[Tensor, "b h i j"], taken: list[Tensor], block: int) -> "Sorted":
        """With the block that the last row of the soft permutation mixes from the finished ones."""
        done = self.finished(block)
        blocks = done.length // block
        row, group = order[:, :, -1, :blocks], order.shape[1] // done.keys.shape[1]
        real = done.key_mask.to(row.dtype).unflatten(1, (blocks, block))
        mass = torch.einsum("bhj, bjt -> bht", row, real)
        keys, values = (
            torch.einsum("bgxj, bgjtd -> bgxtd", row.unflatten(1, (-1, group)), x.unflatten(2, (blocks, block)))
            / _never_zero(mass).unflatten(1, (-1, group))[..., None]
            for x in done[:2]
        )
        sorted_keys, sorted_values = keys.flatten(1, 2), values.flatten(1, 2)
        return self._replace(
            taken=torch.stack(taken, 2), sorted_keys=sorted_keys, sorted_values=sorted_values, mass=mass
        )

    def asked(self, q: Float[Tensor, "b h 1 d"], block: int) -> Float[Tensor, "b h 1 e"]:
        """The softmax over the sorted block and the present one, as far as it goes."""
        begin = (self.length - 1) // block * block
        own = (for_queries(x[:, :, begin:], q.shape[1]) for x in self[:2])
        keys, values = (torch.cat(pair, 2) for pair in zip((self.sorted_keys, self.sorted_values), own, strict=True))
        tiny = torch.finfo(self.mass.dtype).tiny
        shift = _never_zero(self.mass).log().masked_fill(self.mass < tiny, -math.inf)
        real = self.key_mask[:, None, begin:].expand(-1, q.shape[1], -1)
        shift = torch.cat([shift, torch.zeros_like(real, dtype=q.dtype).masked_fill(~real, -math.inf)], 2)
        scores = q @ keys.mT / math.sqrt(q.shape[3]) + shift[:, :, None]
        return normalised(scores, 3).exp() @ values


def _never_zero(mass: Float[Tensor, "b h t"]) -> Float[Tensor, "b h t"]:
    return mass.clamp(min=torch.finfo(mass.dtype).tiny)


def nothing(
    shape: tuple[int, int, int],
    dims: tuple[int, int, int],
    block: int,
    turns: int,
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> Sorted:
    """The state before the first token.

    Args:
        shape: examples, query heads, key heads.
        dims: of keys, of values, of `total`.
        block: positions in a block.
        turns: of the balancing.
        dtype: of the state.
        device: where it is kept.
    """
    empty = torch.zeros(shape[0], 0, dtype=torch.bool, device=device)
    sizes = sizes_of(shape, dims, block, turns, 0)
    keys, values, _, *others = (torch.zeros(*size, dtype=dtype, device=device) for size in sizes)
    return Sorted(keys, values, empty, *others)


def sizes_of(
    shape: tuple[int, int, int], dims: tuple[int, int, int], block: int, turns: int, n: int
) -> tuple[tuple[int, ...], ...]:
    """The shapes of a state's tensors behind `n` tokens."""
    (b, h, g), (d, e, f) = shape, dims
    tokens = (b, g, n, d), (b, g, n, e), (b, n)
    return *tokens, (b, h, f), (b, h, turns, -(-n // block)), (b, h, block, d), (b, h, block, e), (b, h, block)

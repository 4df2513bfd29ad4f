"""What the probes feed a target: inputs of the shapes it accepts, and masks.

Inputs are a tuple of tensors whose first axis is the batch and whose second to last is the sequence: (q, k, v),
each `[b h n d]`, or (x,), `[b n c]`. So one probe serves both.
"""

from dataclasses import dataclass

import torch
from torch import Generator

from saccade.shapes import Bool, Float, Int, Tensor

Inputs = tuple[Tensor, ...]
Rows = Bool[Tensor, "b n"] | Int[Tensor, "b n"]


@dataclass(frozen=True)
class Shape:
    """The sizes a target accepts, apart from batch and length.

    Attributes:
        heads: number of heads, the same for queries and keys; 0 where the input is one x without heads.
        dim: dim of one query and key, or the width of x.
        value_dim: dim of one value.
    """

    heads: int
    dim: int
    value_dim: int

    @property
    def names(self) -> tuple[str, ...]:
        """What the inputs are called."""
        return ("q", "k", "v") if self.heads else ("x",)

    def draw(self, b: int, n_q: int, n_k: int, generator: Generator) -> Inputs:
        """Standard normal inputs in float64, on the CPU."""
        if not self.heads:
            return (torch.randn(b, n_q, self.dim, generator=generator, dtype=torch.float64),)
        sizes = ((n_q, self.dim), (n_k, self.dim), (n_k, self.value_dim))
        return tuple(torch.randn(b, self.heads, *size, generator=generator, dtype=torch.float64) for size in sizes)


def spread(rows: Rows, like: Float[Tensor, "b ... n d"]) -> Tensor:
    """The same rows, in a shape that broadcasts over heads and features."""
    return rows.reshape(rows.shape[0], *([1] * (like.ndim - 3)), rows.shape[1], 1)


def replaced(inputs: Inputs, rows: Bool[Tensor, "b n"], new: Inputs) -> Inputs:
    """The inputs, with those rows taken from `new`."""
    return tuple(torch.where(spread(rows, old), fresh, old) for old, fresh in zip(inputs, new, strict=True))


def scaled(inputs: Inputs, factor: float) -> Inputs:
    """The inputs, that many times as large."""
    return tuple(tensor * factor for tensor in inputs)


def first(inputs: Inputs, n: int) -> Inputs:
    """The first n positions."""
    return tuple(tensor[..., :n, :] for tensor in inputs)


def extended(inputs: Inputs, more: Inputs) -> Inputs:
    """The inputs with `more` positions behind them."""
    return tuple(torch.cat(pair, dim=-2) for pair in zip(inputs, more, strict=True))


def between(inputs: Inputs, start: int, stop: int) -> Inputs:
    """The positions from `start` up to `stop`."""
    return tuple(tensor[..., start:stop, :] for tensor in inputs)


def reordered(inputs: Inputs, order: Int[Tensor, "b n"]) -> Inputs:
    """Position i of the result is position `order[i]` of the inputs, for each example."""
    return tuple(torch.take_along_dim(tensor, spread(order, tensor), dim=-2) for tensor in inputs)


def examples(inputs: Inputs, index: list[int]) -> Inputs:
    """Some examples of the batch, in that order."""
    return tuple(tensor[index] for tensor in inputs)


def up_to(lengths: list[int], n: int) -> Bool[Tensor, "b n"]:
    """A mask that is True on the first positions of each example: padding on the right."""
    return torch.arange(n) < torch.tensor(lengths)[:, None]


def right_padding(b: int, n: int) -> Bool[Tensor, "b n"]:
    """The first example is half padding, the second a third; those after them have none."""
    return up_to([max(1, n // 2), max(1, 2 * n // 3), *[n] * b][:b], n)


def left_padding(b: int, n: int) -> Bool[Tensor, "b n"]:
    """The mirror image of `right_padding`."""
    return right_padding(b, n).flip(1)


def holes(b: int, n: int) -> Bool[Tensor, "b n"]:
    """About a third of the positions are hidden, in runs and alone; position 0 is always real."""
    position = torch.arange(n) + 5 * torch.arange(b)[:, None]
    hidden = (position % 7 == 3) | (position % 29 > 22)
    hidden[:, 0] = False
    return ~hidden


def masks(b: int, n: int, any_mask: bool) -> dict[str, Bool[Tensor, "b n"]]:
    """The kinds of padding to try, by name; only right padding where no more is promised."""
    kinds = {"right padding": right_padding(b, n)}
    if any_mask:
        kinds |= {"left padding": left_padding(b, n), "holes": holes(b, n)}
    return kinds

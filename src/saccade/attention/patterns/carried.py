"""What patterns that carry a tensor share: equality by content, a hash that is computed once, a readable name."""

import hashlib

import torch
from torch import Tensor

from saccade.attention.patterns.pattern import Pattern
from saccade.errors import must_be
from saccade.shapes import Int


class CarriesTensor(Pattern):
    """A pattern whose one option is a tensor of integers, copied when it is made.

    Such a pattern has no expression: it is made in Python, never read from TOML or the command line.

    Args:
        name: what the tensor is called, for messages.
        value: the tensor.

    Raises:
        TypeError: no tensor of integers.
    """

    tensor: Int[Tensor, "..."]
    _digest: str

    def __init__(self, name: str, value: object) -> None:
        integers = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
        if not isinstance(value, Tensor) or value.dtype not in integers:
            constraint = "a tensor of integers (made in Python: it can't be written as text)"
            raise TypeError(must_be(name, constraint, getattr(value, "dtype", value)))
        object.__setattr__(self, "tensor", value.detach().to("cpu", torch.long, copy=True).contiguous())
        content = self.tensor.numpy().tobytes() + repr(tuple(self.tensor.shape)).encode()
        object.__setattr__(self, "_digest", hashlib.sha256(content).hexdigest())

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} can't be changed: make a new one")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._digest == self._digest

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._digest))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<{' x '.join(map(str, self.tensor.shape))} numbers, {self._digest[:16]}>)"

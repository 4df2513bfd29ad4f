"""Work that `torch.compile` does not look into: one operator for all of it.

Where loops or shapes follow from what tensors hold, a tracer gives up. Such work, an autograd function and what chooses
its options, is given a name here, by which a graph calls it. Nothing but its inputs is kept: coming back it is done
once more, so that a compiled training step takes one forward pass of it longer than an eager one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from saccade.shapes import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def constant(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, whose result is a constant of a graph: it is called while the graph is traced.

    What `torch.compiler.assume_constant_result` marks, without its import of all of the compiler: that takes as long
    as the import of torch, and who never compiles needs none of it.
    """
    setattr(function, "_dynamo_marked_constant", True)  # noqa: B010 - no type knows of it
    return function


class Opaque(ABC):
    """Tensors in, tensors out, with options bound: a frozen dataclass, so that its `repr` says what it does."""

    @abstractmethod
    def forward(self, ctx: Any, *tensors: Any) -> tuple[Tensor, ...]:
        """The results, as the `forward` of an autograd function; only the first one has a gradient."""

    @abstractmethod
    def backward(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the first tensors, as far as they have any."""

    @abstractmethod
    def empty(self, *tensors: Any) -> tuple[Tensor, ...]:
        """What is shaped like the results."""


class _Context:
    """What an autograd function is given to keep things in."""

    saved_tensors: tuple[Tensor | None, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        pass


_known: dict[str, Opaque] = {}


def name_of(work: Opaque) -> str:
    """The name of some work in graphs; whoever calls it while tracing is a `constant`."""
    name = repr(work)
    _known[name] = work
    return name


def run(name: str, *tensors: Tensor | None) -> list[Tensor]:
    """The results of named work, in a graph."""
    given = [tensor for tensor in tensors if tensor is not None]
    return _forward(given, name, "".join("-" if tensor is None else "+" for tensor in tensors))


def _placed(tensors: list[Tensor], places: str) -> list[Tensor | None]:
    """The tensors, and `None` where one was left out."""
    left = iter(tensors)
    return [next(left) if place == "+" else None for place in places]


@torch.library.custom_op(
    "saccade::opaque", mutates_args=(), schema="(Tensor[] tensors, str name, str places) -> Tensor[]"
)
def _forward(tensors: list[Tensor], name: str, places: str) -> list[Tensor]:
    """The work. No result may be an input, or lie in memory in another order than was told."""
    return [found.contiguous() for found in _known[name].forward(_Context(), *_placed(tensors, places))]


@_forward.register_fake
def _(tensors: list[Tensor], name: str, places: str) -> list[Tensor]:
    return list(_known[name].empty(*_placed(tensors, places)))


@torch.library.custom_op(
    "saccade::opaque_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor[] tensors, str name, str places) -> Tensor[]",
)
def _backward(grad: Tensor, tensors: list[Tensor], name: str, places: str) -> list[Tensor]:
    """The gradients of all tensors: zeros where the work knows none, and nothing for what has no gradient."""
    work, ctx, given = _known[name], _Context(), _placed(tensors, places)
    work.forward(ctx, *given)
    found = [*work.backward(ctx, grad), *(None,) * len(given)]
    return [_gradient(x, to_x) for x, to_x in zip(given, found, strict=False) if x is not None]


def _gradient(x: Tensor, found: Tensor | None) -> Tensor:
    if not x.is_floating_point():
        return x.new_empty(0)
    return torch.zeros_like(x, memory_format=torch.contiguous_format) if found is None else found.contiguous()


@_backward.register_fake
def _(grad: Tensor, tensors: list[Tensor], name: str, places: str) -> list[Tensor]:
    return [x.new_empty(x.shape if x.is_floating_point() else 0) for x in tensors]


def _save(ctx: Any, inputs: tuple[list[Tensor], str, str], output: list[Tensor]) -> None:
    tensors, *ctx.names = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, grads: list[Tensor]) -> tuple[list[Tensor | None], None, None]:
    tensors = list(ctx.saved_tensors)
    found = _backward(grads[0], tensors, *ctx.names)
    return [to_x if x.is_floating_point() else None for x, to_x in zip(tensors, found, strict=True)], None, None


_forward.register_autograd(_gradients, setup_context=_save)

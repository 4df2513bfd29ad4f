"""Decoding states: what a layer keeps between one token and the next.

A state is a NamedTuple of tensors (or of further states, or tuples of them), batch first, in the dtype of the queries
and at least fp32. Whole numbers in it, such as a position, speak of all rows alike. It is a value: a step returns a new
one and leaves the old one as it was, so that beams may branch from it.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor

from saccade.attention.inputs import validate
from saccade.errors import must_be, whole_number
from saccade.shapes import Bool, Float, Int

State = TypeVar("State", bound=tuple[Any, ...])


def reorder(state: State, index: Int[Tensor, " b2"]) -> State:
    """The states of other examples in place of these: what a beam search does when it goes on with its best beams.

    Args:
        state: a decoding state; it is left as it is.
        index: for each new row the row of `state` it comes from; rows may be repeated or left out.

    Returns:
        A state of the same kind with as many rows as `index` has numbers.

    Raises:
        TypeError: no state, or no whole numbers.
    """
    if not (isinstance(state, tuple) and hasattr(state, "_fields")):
        raise TypeError(must_be("state", "a decoding state, a NamedTuple of tensors", type(state).__name__))
    if not isinstance(index, Tensor) or index.dtype not in (torch.int32, torch.int64) or index.ndim != 1:
        got = f"{tuple(index.shape)} of {index.dtype}" if isinstance(index, Tensor) else type(index).__name__
        raise TypeError(must_be("index", "a tensor [b2] of whole numbers", got))
    return _reordered(state, index)


def _reordered(part: Any, index: Int[Tensor, " b2"]) -> Any:
    """The same for a tensor, a state or a tuple of them; what is one for all rows, or is not there, stays."""
    if isinstance(part, Tensor):
        return part.index_select(0, index)
    if part is None or isinstance(part, int):
        return part
    taken = [_reordered(each, index) for each in part]
    return type(part)(*taken) if hasattr(part, "_fields") else tuple(taken)


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a state for queries of a dtype: the same, at least fp32."""
    return torch.promote_types(dtype, torch.float32)


def validate_initial(batch: int, dtype: torch.dtype | None) -> torch.dtype:
    """Refuse what no state can begin with; the dtype of the state.

    Raises:
        ValueError: no examples, or a dtype that is not floating point.
    """
    whole_number("batch", batch)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not dtype.is_floating_point:
        raise ValueError(must_be("dtype", "floating point", dtype))
    return state_dtype(dtype)


def validate_step(
    q: Float[Tensor, "b h 1 d"],
    k: Float[Tensor, "b g 1 d"],
    v: Float[Tensor, "b g 1 e"],
    key_mask: Bool[Tensor, "b 1"] | None,
) -> None:
    """Refuse inputs that are not one token of each example.

    Raises:
        ValueError, TypeError: as every attention call, or more or fewer tokens than one.
    """
    validate(q, k, v, key_mask, 0)
    for name, tensor in (("q", q), ("k", k)):
        if tensor.shape[2] != 1:
            raise ValueError(must_be(f"{name} of a step", "one token long", tensor.shape[2]))


def validate_prefill(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    key_mask: Bool[Tensor, "b k"] | None,
) -> None:
    """Refuse inputs that are not of the same tokens.

    Raises:
        ValueError, TypeError: as every attention call, or queries and keys of different lengths.
    """
    validate(q, k, v, key_mask, 0)
    if k.shape[2] != q.shape[2]:
        raise ValueError(must_be("k of a prefill", f"as long as q, {q.shape[2]}", k.shape[2]))


def validate_state(state: object, kind: type, shapes: tuple[tuple[int, ...], ...], like: Tensor) -> None:
    """Refuse a state that does not belong to these inputs.

    Args:
        state: what was given.
        kind: the NamedTuple it must be.
        shapes: the shape of each of its tensors.
        like: the queries, for dtype and device.

    Raises:
        TypeError: another kind of value.
        ValueError: a tensor of another shape, dtype or device.
    """
    if not isinstance(state, kind):
        constraint = f"a {kind.__name__} from initial_state, prefill or step"
        raise TypeError(must_be("state", constraint, type(state).__name__))
    assert isinstance(state, tuple)
    dtype = state_dtype(like.dtype)
    for number, (leaf, shape) in enumerate(zip(state, shapes, strict=True)):
        if leaf.shape != shape or leaf.device != like.device or leaf.dtype not in (dtype, torch.bool, torch.int32):
            name = f"state.{kind._fields[number]}"  # pyright: ignore[reportAttributeAccessIssue]
            got = f"{tuple(leaf.shape)} of {leaf.dtype} on {leaf.device}"
            raise ValueError(must_be(name, f"of shape {shape}, {dtype} on {like.device}", got))

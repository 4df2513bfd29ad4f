"""What every attention call owes its inputs: the checks, and keys that are hidden before anything touches them."""

import torch
from torch import Tensor

from saccade.errors import must_be, whole_number
from saccade.shapes import Bool, Float

AXES = {"q": "[b h q d]", "k": "[b g k d]", "v": "[b g k e]"}


def validate(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, q_start: int) -> None:
    """Refuse inputs that do not belong together.

    Raises:
        ValueError: a shape, dtype, device or position that does not fit; the message names it.
        TypeError: something that is no tensor.
    """
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if not isinstance(tensor, Tensor):
            raise TypeError(must_be(name, f"a tensor {AXES[name]}", type(tensor).__name__))
        if tensor.ndim != 4:
            raise ValueError(must_be(name, f"of shape {AXES[name]}", tuple(tensor.shape)))
        if not tensor.is_floating_point():
            raise ValueError(must_be(name, "floating point", tensor.dtype))
        if tensor.dtype != q.dtype:
            raise ValueError(must_be(name, f"of q's dtype {q.dtype}", tensor.dtype))
        if tensor.device != q.device or tensor.shape[0] != q.shape[0]:
            wanted = f"on q's device {q.device} with q's batch size {q.shape[0]}"
            raise ValueError(must_be(name, wanted, f"{tensor.device}, {tensor.shape[0]}"))
    if not q.shape[3]:
        raise ValueError(must_be("q's last axis", "at least 1 long", q.shape[3]))
    if k.shape[3] != q.shape[3]:
        raise ValueError(must_be("k's last axis", f"as long as q's, {q.shape[3]}", k.shape[3]))
    if v.shape[1:3] != k.shape[1:3]:
        raise ValueError(must_be("v's heads and length", f"k's, {tuple(k.shape[1:3])}", tuple(v.shape[1:3])))
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(must_be("key heads", f"a divisor of the {q.shape[1]} query heads", k.shape[1]))
    whole_number("q_start", q_start, 0)
    if key_mask is not None:
        validate_key_mask(key_mask, (k.shape[0], k.shape[2]), k.device)


def validate_one_sequence(
    q: Tensor, k: Tensor | None, v: Tensor, key_mask: Tensor | None, q_start: int, shared_qk: bool = False
) -> None:
    """Refuse inputs that are not the queries, keys and values of the same tokens, all of them.

    Args:
        q: queries.
        k: keys; anything where `shared_qk`.
        v: values.
        key_mask: True for real tokens.
        q_start: must be 0.
        shared_qk: whether queries are keys as well, and k is not read.

    Raises:
        ValueError, TypeError: as `validate`, or queries and keys of different lengths, or not from the first on.
    """
    if shared_qk and isinstance(q, Tensor) and isinstance(v, Tensor) and v.ndim == q.ndim == 4:
        k = q[:, :1].expand(-1, v.shape[1], -1, -1)
    validate(q, k, v, key_mask, q_start)  # pyright: ignore[reportArgumentType] - it refuses what is no tensor
    if v.shape[2] != q.shape[2]:
        raise ValueError(must_be("k's length", f"q's, {q.shape[2]}, as queries and keys are one sequence", v.shape[2]))
    if q_start:
        raise ValueError(must_be("q_start", "0, as queries and keys are one sequence", q_start))


def validate_built(name: str, tensor: Tensor, heads: int, dim: int) -> None:
    """Refuse queries, keys or values of other sizes than those a layer with weights or centroids was built for.

    Raises:
        ValueError: the message names the input, and both sizes.
    """
    if (tensor.shape[1], tensor.shape[3]) != (heads, dim):
        wanted = f"of {heads} heads of {dim} numbers, for which the layer was built"
        raise ValueError(must_be(name, wanted, f"{tensor.shape[1]} of {tensor.shape[3]}"))


def validate_key_mask(key_mask: object, wanted: tuple[int, int], device: torch.device) -> None:
    """Refuse a key mask that is not boolean, of shape `[b k]` and where the keys are.

    Raises:
        TypeError: not a boolean tensor.
        ValueError: another shape or device.
    """
    if not isinstance(key_mask, Tensor) or key_mask.dtype != torch.bool:
        got = getattr(key_mask, "dtype", type(key_mask).__name__)
        raise TypeError(must_be("key_mask", "a boolean tensor (True = may be attended)", got))
    if key_mask.shape != wanted or key_mask.device != device:
        got = f"{tuple(key_mask.shape)} on {key_mask.device}"
        raise ValueError(must_be("key_mask", f"of shape [b k] = {wanted} on {device}", got))


def needed(key_mask: Bool[Tensor, "b k"] | None) -> Bool[Tensor, "b k"] | None:
    """The mask, or `None` if it hides nothing: looking costs little, and without a mask kernels are faster.

    On a GPU the mask stays, because looking would wait for all the work before it; so it does under `torch.compile`.
    """
    if key_mask is None or key_mask.device.type != "cpu" or torch.compiler.is_compiling():
        return key_mask
    return None if bool(key_mask.all()) else key_mask


def hide(
    k: Float[Tensor, "b g k d"], v: Float[Tensor, "b g k e"], key_mask: Bool[Tensor, "b k"] | None
) -> tuple[Float[Tensor, "b g k d"], Float[Tensor, "b g k e"]]:
    """Zero what stands behind the mask, so that NaN or inf there reaches no output and no gradient."""
    if key_mask is None:
        return k, v
    hidden = ~key_mask[:, None, :, None]
    return k.masked_fill(hidden, 0), v.masked_fill(hidden, 0)


def live_lengths(key_mask: Bool[Tensor, "b k"] | None) -> tuple[int, ...] | None:
    """How far each example reaches: one past its last real token. `None` where there is no mask."""
    if key_mask is None:
        return None
    position = torch.arange(1, key_mask.shape[1] + 1, device=key_mask.device)
    return tuple((key_mask * position).amax(1).tolist()) if key_mask.shape[1] else (0,) * len(key_mask)

"""Counts what torch carries out and what it keeps, as oracles of the formulas of cost."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def counted_flops(work: Callable[[], object]) -> int:
    """Operations of all matrix products; two for a multiplication and an addition."""
    # The counter knows torch's kernels by name, but not the fused one for the CPU, nor a product added in place.
    aten = torch.ops.aten
    unknown = {aten._scaled_dot_product_flash_attention_for_cpu: _of_shapes, aten.baddbmm_: _of_product}
    with FlopCounterMode(display=False, custom_mapping=unknown) as counter:
        work()
    return counter.get_total_flops()


def _of_shapes(
    q: torch.Size, k: torch.Size, v: torch.Size, _: float = 0.0, is_causal: bool = False, **__: object
) -> int:
    every = sdpa_flop_count(q, k, v)
    if not is_causal:
        return every
    pairs = sum(min(row + 1, k[2]) for row in range(q[2]))  # the kernel skips what lies above the diagonal
    return every // (q[2] * k[2]) * pairs


def _of_product(_: torch.Size, a: torch.Size, b: torch.Size, **__: object) -> int:
    return 2 * a.numel() * b[-1]


def kept_bytes(work: Callable[[], Tensor], parameters: Iterable[Tensor] = ()) -> int:
    """Bytes of all storages that autograd keeps for the backward pass, but for parameters and the result."""
    storages = []

    def pack(tensor: Tensor) -> Tensor:
        storages.append(tensor.untyped_storage())
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = work()
    others = {tensor.untyped_storage().data_ptr() for tensor in (*parameters, out)}
    return sum({each.data_ptr(): each.nbytes() for each in storages if each.data_ptr() not in others}.values())

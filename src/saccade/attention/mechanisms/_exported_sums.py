"""Causal sums for `torch.export`, in plain operators: chunks of rows are an axis of their own.

A graph holds no loop whose turns follow a length that may vary, and no autograd function. It is for inference.

Cost: memory O(n (f + chunk + f e / chunk)) for `f` features, and (n / chunk)^2 scales where the past fades.
"""

import torch
from torch.nn.functional import pad

from saccade.attention.mechanisms._feature_map import CHUNK, Sums, divisor
from saccade.shapes import Bool, Float, Tensor

HALVES = [1 << power for power in range(CHUNK.bit_length() - 1)]
"""Ever longer halves of stretches of a chunk."""


def exported_causal(
    phi_q: Float[Tensor, "m n f"],
    phi_k: Float[Tensor, "m n f"],
    v: Float[Tensor, "m n e"],
    earlier: Sums | None,
    least: float,
) -> Float[Tensor, "m n e"]:
    """What `causal_by_features` gives, from features; those of hidden keys are zero."""
    n = v.shape[1]
    phi_q, phi_k, v = _chunked(phi_q, phi_k, v)
    pairs = (phi_q @ phi_k.mT).tril()
    begin = None if earlier is None else torch.cat(earlier, 2)
    return in_one_piece(_divided(pairs @ v + phi_q @ _added_up(phi_k.mT @ v, begin), least), n)


def exported_scaled(
    phi_q: Float[Tensor, "m n f"],
    phi_k: Float[Tensor, "m n f"],
    v: Float[Tensor, "m n e"],
    earlier: Sums,
    scales: tuple[Float[Tensor, "m n 1"], Float[Tensor, "m n 1"], Float[Tensor, "m 1 1"]],
    least: float,
) -> Float[Tensor, "m n e"]:
    """What `causal_scaled` gives, from features and `Scales`; features of hidden keys are zero."""
    n, last = v.shape[1], scales[1][:, -1:]
    key, row, begin = (x - last for x in scales)  # so that rows that fill up have the scale of the last one
    key, row = in_chunks(key), in_chunks(row)
    before = torch.cat([begin[:, None], row[:, :, -1:]], 1)[:, :-1]
    from_key, from_row = ((x - before).to(v.dtype) for x in (key, row))
    phi_q, phi_k, v = _chunked(phi_q, phi_k, v)
    own = phi_k.mT @ (v * (from_key - from_row[:, :, -1:]).exp2())
    flat = faded(own.flatten(2)[:, :, None], row[:, :, -1:], before)
    sums = flat.unflatten(3, own.shape[2:]).squeeze(2)
    sums = sums + torch.cat(earlier, 2)[:, None] * _fall(begin[:, None] - before).to(v.dtype)
    pairs = (phi_q @ phi_k.mT * (from_key.mT - from_row).exp2()).tril()
    return in_one_piece(_divided(pairs @ v + phi_q @ sums * _fall(-from_row), least), n)


def in_chunks(x: Float[Tensor, "m n f"]) -> Float[Tensor, "m c t f"]:
    """Rows in chunks, with zeros behind the last one. Always several chunks: a tracer takes a single one for fixed."""
    n = x.shape[1]
    return pad(x, (0, 0, 0, (n // CHUNK + 2) * CHUNK - n)).unfold(1, CHUNK, CHUNK).mT


def in_one_piece(x: Float[Tensor, "m c t f"], n: int) -> Float[Tensor, "m n f"]:
    """The first `n` rows."""
    return x.flatten(1, 2).index_select(1, torch.arange(n, device=x.device))  # a slice asks how the length divides


def faded(
    own: Float[Tensor, "m c f e"], ends: Float[Tensor, "m c 1 f"], before: Float[Tensor, "m c 1 f"]
) -> Float[Tensor, "m c f e"]:
    """What all chunks before each add up to, each feature of each of them times 2^(its end - before this one)."""
    exponents = (ends[:, None] - before[:, :, None]).squeeze(3).to(own.dtype)
    scales = _fall(exponents).masked_fill(_not_before(own)[..., None], 0)
    return (scales.permute(0, 3, 1, 2) @ own.transpose(1, 2)).transpose(1, 2)


def highest_so_far(
    x: Float[Tensor, "m c t d"], begin: Float[Tensor, "m 1 d"]
) -> tuple[Float[Tensor, "m c t d"], Float[Tensor, "m c 1 d"]]:
    """The largest of `begin` and the rows up to each; and the largest before each chunk. ONNX has no `cummax`."""
    for half in HALVES:
        early, late = halved(x, half)
        x = joined(early, late.maximum(early[:, :, :, -1:]))
    earlier = x[:, None, :, -1].masked_fill(_not_before(x)[..., None], -torch.inf)
    before = earlier.amax(2, keepdim=True).maximum(begin[:, None])
    return x.maximum(before), before


def halved(x: Float[Tensor, "m c t d"], half: int) -> tuple[Float[Tensor, "m c _s h d"], Float[Tensor, "m c _s h d"]]:
    """The earlier and the later halves of stretches of rows."""
    early, late = x.unflatten(2, (-1, 2, half)).unbind(3)
    return early, late


def joined(early: Float[Tensor, "m c _s h d"], late: Float[Tensor, "m c _s h d"]) -> Float[Tensor, "m c t d"]:
    """The chunks that they are halves of."""
    return torch.cat([early, late], 3).flatten(2, 3)


def _fall(exponents: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """By how much sums fall. They rise where they are empty only, and there any number will do, but no infinite one."""
    return exponents.clamp(max=0).exp2()


def _not_before(x: Float[Tensor, "m c ..."]) -> Bool[Tensor, "c c"]:
    """For each chunk all but those before it."""
    chunk = torch.arange(x.shape[1], device=x.device)
    return chunk >= chunk[:, None]


def _chunked(
    phi_q: Float[Tensor, "m n f"], phi_k: Float[Tensor, "m n f"], v: Float[Tensor, "m n e"]
) -> tuple[Float[Tensor, "m c t f"], Float[Tensor, "m c t f"], Float[Tensor, "m c t e1"]]:
    """In chunks, the values with a column of ones, which makes sums of weights. At once: tracing takes its time."""
    sizes = [phi_q.shape[2], phi_k.shape[2], v.shape[2] + 1]
    phi_q, phi_k, v = in_chunks(torch.cat([phi_q, phi_k, v, torch.ones_like(v[..., :1])], 2)).split(sizes, -1)
    return phi_q, phi_k, v


def _divided(both: Float[Tensor, "m c t e1"], least: float) -> Float[Tensor, "m c t e"]:
    """Sums over the sums of weights in the last column."""
    return both[..., :-1] / divisor(both[..., -1:], least)


def _added_up(own: Float[Tensor, "m c f e"], begin: Float[Tensor, "m f e"] | None) -> Float[Tensor, "m c f e"]:
    """What all chunks before each add up to. Those behind it are not even touched and taken away again."""
    first = torch.zeros_like(own[:, :1]) if begin is None else begin[:, None]
    return torch.cat([first, own], 1).cumsum(1)[:, :-1]

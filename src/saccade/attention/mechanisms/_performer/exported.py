"""The same attention in a few plain operators, for `torch.export`: no loop depends on a length.

Cost: all features at once; causally that of `_exported_sums.py`.
"""

from torch.nn.functional import pad

from saccade.attention.backends._tiles import LOG2E
from saccade.attention.mechanisms._exported_sums import exported_scaled, highest_so_far, in_chunks, in_one_piece
from saccade.attention.mechanisms._feature_map import Sums
from saccade.attention.mechanisms._performer.positive_features import least, lowest
from saccade.shapes import Bool, Float, Tensor


def exported(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    key_mask: Bool[Tensor, "b k"] | None,
    directions: Float[Tensor, "g f d"],
    causal: bool,
    q_start: int,
) -> Float[Tensor, "b h q e"]:
    """What each query gets; hidden keys and values must be zero."""
    group, scale = q.shape[1] // k.shape[1], k.shape[3] ** -0.25
    directions, k, v = (x.repeat_interleave(group, -3) for x in (directions, k, v))
    products_q, products_k = (x @ directions.mT * (scale * LOG2E) for x in (q, k))
    phi_q, phi_k = ((x - x.amax(-1, keepdim=True)).exp2() for x in (products_q, products_k))
    key = products_k.amax(-1) - k.square().sum(-1) * (0.5 * scale**2 * LOG2E)
    if key_mask is not None:
        key = key.masked_fill(~key_mask[:, None], 2 * lowest(key.dtype))
    if causal:
        keys = phi_k.flatten(0, 1), v.flatten(0, 1), key.flatten(0, 1)[..., None]
        return _causal(phi_q.flatten(0, 1), *keys, q_start).unflatten(0, q.shape[:2])
    phi_k = phi_k * (key - key.amax(-1, keepdim=True).clamp(min=lowest(key.dtype))).exp2()[..., None]
    return phi_q @ (phi_k.mT @ v) / (phi_q @ phi_k.sum(-2)[..., None]).clamp(min=least(q.dtype))


def _causal(
    phi_q: Float[Tensor, "m q f"],
    phi_k: Float[Tensor, "m k f"],
    v: Float[Tensor, "m k e"],
    key: Float[Tensor, "m k 1"],
    q_start: int,
) -> Float[Tensor, "m q e"]:
    """Each key by its scale against the largest up to the query; before the first query there are empty ones."""
    n, low = phi_q.shape[1], lowest(key.dtype)
    end = q_start + n
    if (missing := end - v.shape[1]) > 0:  # queries behind the last key see all keys
        phi_k, v, key = (pad(x, (0, 0, 0, missing), value=y) for x, y in ((phi_k, 0.0), (v, 0.0), (key, 2 * low)))
    phi_k, v, key = (x[:, :end] for x in (phi_k, v, key))
    begin = key.new_full((key.shape[0], 1, 1), low)
    row = in_one_piece(highest_so_far(in_chunks(key), begin)[0], end)
    row, begin = (x.masked_fill(x <= low, 0) for x in (row, begin))  # as long as there is no key, any will do
    nothing = Sums(*(v.new_zeros(v.shape[0], phi_k.shape[2], dim) for dim in (v.shape[2], 1)))
    phi_q = pad(phi_q, (0, 0, q_start, 0))
    return exported_scaled(phi_q, phi_k, v, nothing, (key, row, begin), least(v.dtype))[:, q_start:]

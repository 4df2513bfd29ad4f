"""exp(k_j - peak_i) in factors of key j and query i, none of them above 1 and none from what comes after i.

The weight of key j for query i is the sum over features of a_i E_ij, with E_ij = exp(k_j - peak_i), peak_i the largest
key up to i, and a_i the query's feature over z_i = sum_j E_ij. E has a factor of j and one of i only by way of a number
to subtract and add. So that neither leaves the range of floats, whatever the keys, it must lie between k_j and peak_i;
so that i depends on nothing behind it, it must be a peak between j and i. So a chunk of positions is halved again and
again: a later half sees the earlier one by way of the peak at the end of the earlier. Sums over what came before the
chunk are carried, and sink as peaks rise. What underflows is nothing next to z_i >= 1.

Exponents are in units of log2, as in `features.py`: shifts are -peak log2 e, and fall with the position.

Cost: log2(chunk) + 3 exponentials for each number of a key.
"""

from typing import NamedTuple

import torch

from saccade.attention.backends._tiles import LOG2E, Workspace
from saccade.attention.mechanisms._efficient.features import lowest
from saccade.shapes import Float, Tensor


class Factors(NamedTuple):
    """What E is made of in some chunks: numbers of each position and feature, at most 1.

    Attributes:
        halves: of pairs of a later with an earlier half, for each length of halves: those of keys and of queries.
        own: of a position with itself.
        begin: of a query with the sums before its chunk.
        end: of a key in the sums behind its chunk.
        fall: by which sums sink from before a chunk to behind it.
    """

    halves: list[tuple[Float[Tensor, "_p _half d"], Float[Tensor, "_p _half d"]]]
    own: Float[Tensor, "c n d"]
    begin: Float[Tensor, "c n d"]
    end: Float[Tensor, "c n d"]
    fall: Float[Tensor, "c d 1"]


def factors(
    work: Workspace, k: Float[Tensor, "c n d"], shift: Float[Tensor, "m 1 d"]
) -> tuple[Factors, Float[Tensor, "m 1 d"]]:
    """The factors of all chunks of some heads, from the shifts before them; and the shifts behind them."""
    row, before, behind = _shifts(work, k, shift)
    exponents = work.take("factors", k.shape[1].bit_length() + 2, *k.shape)
    own, begin, end, *levels = exponents
    torch.add(row, k, alpha=LOG2E, out=own)
    torch.sub(row, before, out=begin)
    torch.add(behind, k, alpha=LOG2E, out=end)
    halves = []
    for level, (early, _), (first, last) in zip(levels, _halved(k), _halved(row), strict=True):
        of_key, of_query = level.view(2, *early.shape)
        torch.add(first[:, -1:], early, alpha=LOG2E, out=of_key)
        torch.sub(last, first[:, -1:], out=of_query)
        halves.append((of_key, of_query))
    exponents.exp2_()
    last_of_head = behind.unflatten(0, (len(shift), -1))[:, -1]
    return Factors(halves, own, begin, end, (behind - before).exp2_().mT), last_of_head


def _shifts(
    work: Workspace, k: Float[Tensor, "c n d"], shift: Float[Tensor, "m 1 d"]
) -> tuple[Float[Tensor, "c n d"], Float[Tensor, "c 1 d"], Float[Tensor, "c 1 d"]]:
    """The shift at each position, and those before and behind each chunk."""
    row = torch.mul(k, -LOG2E, out=work.take("row", *k.shape)).clamp_(max=-LOG2E * lowest(k.dtype))
    for early, late in _halved(row):
        late.clamp_(max=early[:, -1:])
    ends = torch.cat([shift, row[:, -1].unflatten(0, (len(shift), -1))], 1).cummin(1).values
    before, behind = (x.reshape(len(k), 1, -1) for x in (ends[:, :-1], ends[:, 1:]))
    return torch.minimum(row, before, out=row), before, behind


def normaliser(work: Workspace, by: Factors, z: Float[Tensor, "c d 1"]) -> Float[Tensor, "c n d"]:
    """The sum of E over all keys, for each query and feature, and not 0 where there are none."""
    total = work.take("total", *by.own.shape).copy_(by.own).addcmul_(by.begin, z.mT)
    for (of_key, of_query), (_, late) in zip(by.halves, _halved(total), strict=True):
        late.addcmul_(of_query, of_key.sum(1, keepdim=True))
    return total.clamp_(min=0.5)  # with a key of the size of the peak it is no less than 1


def from_normaliser(by: Factors, grad: Float[Tensor, "c n d"], to_k: Float[Tensor, "c n d"]) -> None:
    """Add to the gradient of k that of the normaliser, but for the sums before each chunk."""
    to_k.addcmul_(by.own, grad)
    for (of_key, of_query), (_, late), (early, _) in zip(by.halves, _halved(grad), _halved(to_k), strict=True):
        early.addcmul_(of_key, (late * of_query).sum(1, keepdim=True))


def pairs_of(work: Workspace, by: Factors, a: Float[Tensor, "c n d"]) -> Float[Tensor, "c n n"]:
    """The weights within chunks."""
    pairs = work.take("pairs", *a.shape[:2], a.shape[1]).zero_()
    for (of_key, of_query), (_, late), square in zip(by.halves, _halved(a), _squares(pairs), strict=True):
        scaled = torch.mul(late, of_query, out=work.take("scaled", *late.shape))
        block = torch.bmm(scaled, of_key.mT, out=work.take("block", *late.shape[:2], late.shape[1]))
        square.copy_(block.view(square.shape))
    pairs.diagonal(0, 1, 2).copy_(torch.mul(a, by.own, out=work.take("product", *a.shape)).sum(-1))
    return pairs


def from_pairs(
    work: Workspace,
    by: Factors,
    a: Float[Tensor, "c n d"],
    grad: Float[Tensor, "c n n"],
    to_a: Float[Tensor, "c n d"],
    to_k: Float[Tensor, "c n d"],
) -> None:
    """Write the gradients of a and k from that of the weights within chunks."""
    own = torch.mul(by.own, grad.diagonal(0, 1, 2)[..., None], out=to_a)
    torch.mul(own, a, out=to_k)
    parts = zip(by.halves, _halved(a), _halved(to_a), _halved(to_k), _squares(grad), strict=True)
    for (of_key, of_query), (_, late), (_, to_late), (to_early, _), square in parts:
        scaled = torch.mul(late, of_query, out=work.take("scaled", *late.shape))
        block = work.take("block", *late.shape[:2], late.shape[1])
        block.view(square.shape).copy_(square)
        found = work.take("found", *late.shape)
        to_late.addcmul_(of_query, torch.bmm(block, of_key, out=found))
        to_early.addcmul_(of_key, torch.bmm(block.mT, scaled, out=found))


def _halved(x: Float[Tensor, "c n d"]) -> list[tuple[Tensor, Tensor]]:
    """The earlier and the later halves of ever longer stretches; each stretch is a batch of its own."""
    lengths = (1 << power for power in range(x.shape[1].bit_length() - 1))
    stretches = (x.view(-1, 2, half, x.shape[2]) for half in lengths)
    return [(each[:, 0], each[:, 1]) for each in stretches]


def _squares(pairs: Float[Tensor, "c n n"]) -> list[Float[Tensor, "c _p _half _half"]]:
    """The pairs of later with earlier halves, in the same order."""
    found = []
    for power in range(pairs.shape[1].bit_length() - 1):
        cut = (-1, 2, 1 << power)
        found.append(pairs.unflatten(2, cut).unflatten(1, cut)[:, :, 1, :, :, 0].diagonal(0, 1, 3).movedim(3, 1))
    return found

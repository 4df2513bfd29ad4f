"""Sums over tokens, and queries that ask them, with or without gates; heads of queries share those of their keys.

Cost: that of `_feature_map.py`, of `_causal_features.py`, and with gates of `_scaled_sums.py`.
"""

from typing import NamedTuple

import torch
from torch.nn.functional import pad

from saccade.attention.mechanisms._causal_features import causal_by_features
from saccade.attention.mechanisms._feature_map import FeatureMap, Sums
from saccade.attention.mechanisms._grouped_heads import for_queries, real_keys, sum_keys
from saccade.attention.mechanisms._rfa.gates import Fades
from saccade.attention.mechanisms._scaled_sums import causal_scaled
from saccade.shapes import Bool, Float, Tensor


class Tokens(NamedTuple):
    """Keys and values, zero where hidden.

    Attributes:
        k: keys, as their features take them.
        v: values.
        key_mask: True for real ones; `None` if all are.
        fades: what their gates do, if they have any.
    """

    k: Float[Tensor, "b g n d"]
    v: Float[Tensor, "b g n e"]
    key_mask: Bool[Tensor, "b n"] | None
    fades: Fades | None

    @property
    def real(self) -> Float[Tensor, "m n 1"] | None:
        """1 for real keys and 0 for hidden ones, for each head."""
        return real_keys(self.key_mask, self.k)

    def part(self, rows: slice) -> "Tokens":
        """Some of them."""
        fades = None if self.fades is None else Fades(*(each[:, :, rows] for each in self.fades))
        mask = None if self.key_mask is None else self.key_mask[:, rows]
        return Tokens(self.k[:, :, rows], self.v[:, :, rows], mask, fades)

    def up_to(self, end: int) -> "Tokens":
        """So many, with hidden ones behind them if they are fewer."""
        missing = end - self.k.shape[2]
        if missing <= 0:
            return self.part(slice(0, end))
        mask = self.key_mask
        mask = self.k.new_ones(self.k.shape[0], self.k.shape[2], dtype=torch.bool) if mask is None else mask
        fades = None if self.fades is None else Fades(*(pad(each, (0, 0, 0, missing)) for each in self.fades))
        k, v = (pad(x, (0, 0, 0, missing)) for x in (self.k, self.v))
        return Tokens(k, v, pad(mask, (0, missing)), fades)

    def for_queries(self, heads: int) -> "Tokens":
        """The same for every query head by itself."""
        k, v = for_queries(self.k, heads), for_queries(self.v, heads)
        fades = None if self.fades is None else Fades(*(for_queries(x, heads) for x in self.fades))
        return Tokens(k, v, self.key_mask, fades)


def summed(tokens: Tokens, phi: FeatureMap) -> Sums:
    """The sums behind all tokens; with gates each key is in them by what is left of it."""
    if tokens.fades is None:
        return sum_keys(tokens.k, tokens.v, tokens.key_mask, phi)
    keep, take = tokens.fades
    left = (keep.sum(2, keepdim=True) - keep.cumsum(2) + take).exp2().to(tokens.v.dtype)
    v = torch.cat([tokens.v * left, left], 3)  # the last column makes z, so that the gates feel both
    found = sum_keys(tokens.k, v, tokens.key_mask, phi)
    return Sums(found.s[..., :-1], found.s[..., -1:])


def causal(
    q: Float[Tensor, "b h q d"], tokens: Tokens, q_start: int, phi: FeatureMap, least: float
) -> Float[Tensor, "b h q e"]:
    """Queries with the tokens up to their own positions. Those before `q_start` enter as sums."""
    tokens = tokens.up_to(q_start + q.shape[2]).for_queries(q.shape[1])
    before, own = tokens.part(slice(0, q_start)), tokens.part(slice(q_start, None))
    earlier = Sums(*(each.flatten(0, 1) for each in summed(before, phi))) if q_start else None
    given = q.flatten(0, 1), own.k.flatten(0, 1), own.v.flatten(0, 1), own.real
    if own.fades is None:
        out = causal_by_features(*given, earlier, (phi, phi), least)
    else:
        if earlier is None:
            earlier = Sums(*(q.new_zeros(given[0].shape[0], phi.size(q.shape[3]), dim) for dim in (own.v.shape[3], 1)))
        out = causal_scaled(*given, earlier, (phi, phi), own.fades.scales, least)
    return out.unflatten(0, q.shape[:2])

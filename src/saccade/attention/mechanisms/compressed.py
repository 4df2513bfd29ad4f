"""Memory-compressed attention: a strided convolution makes fewer keys and values; softmax over those.

Source: "Generating Wikipedia by Summarizing Long Sequences" (Liu et al. 2018, arXiv 1801.10198), section 4.2.3.

Cost: O(n^2 d / stride) time, causally half of that; O(n d) memory. A state is n / stride keys and values.
"""

import copy
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn.functional import pad

from saccade.attention.dispatch import attend
from saccade.attention.inputs import hide, needed, validate, validate_built
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, check_sizes, kept_bytes, tensor_bytes
from saccade.attention.mechanisms._compressed.groups import StepsCost, convolved, in_steps, steps_cost, windows
from saccade.attention.mechanisms._key_values import EVERYTHING, KeyValues, joined, key_values
from saccade.attention.record import Record
from saccade.attention.states import state_dtype, validate_initial, validate_prefill, validate_state, validate_step
from saccade.claims import Claims
from saccade.errors import must_be, whole_number
from saccade.shapes import Bool, Float, Tensor


class CompressedState(NamedTuple):
    """What later tokens need of earlier ones.

    Attributes:
        keys: of the finished groups.
        values: of the finished groups.
        key_mask: True for groups with a real token.
        rest_keys: of the tokens that are still to be in a group; zero where hidden.
        rest_values: their values.
        rest_mask: True where they are real.
    """

    keys: Float[Tensor, "b g m d"]
    values: Float[Tensor, "b g m e"]
    key_mask: Bool[Tensor, "b m"]
    rest_keys: Float[Tensor, "b g k d"]
    rest_values: Float[Tensor, "b g k e"]
    rest_mask: Bool[Tensor, "b k"]


class CompressedLayer(AttentionLayer):
    """Softmax attention over convolved keys and values.

    Attributes:
        key_weight: the convolution of keys, as `torch.nn.Conv1d` has its weight.
        value_weight: that of values.
        null_key: a key of each key head that every query sees; `None` where there is none.
    """

    def __init__(self, spec: "CompressedAttention", kv_heads: int, head_dim: int, value_dim: int) -> None:
        super().__init__()
        self.spec = spec
        self.kv_heads, self.head_dim, self.value_dim = kv_heads, head_dim, value_dim
        self.key_weight, self.value_weight = (
            nn.Parameter(torch.empty(kv_heads * dim, kv_heads // spec.groups_of(kv_heads) * dim, spec.taps))
            for dim in (head_dim, value_dim)
        )
        for weight in (self.key_weight, self.value_weight):
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        self.null_key = nn.Parameter(torch.zeros(kv_heads, head_dim)) if spec.null else None

    def forward(
        self,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b g k d"],
        v: Float[Tensor, "b g k e"],
        key_mask: Bool[Tensor, "b k"] | None = None,
        causal: bool = False,
        q_start: int = 0,
        record: Record | None = None,
    ) -> Float[Tensor, "b h q e"]:
        """Softmax over the groups of tokens; causally over those that are finished."""
        validate(q, k, v, key_mask, q_start)
        validate_built("k", k, self.kv_heads, self.head_dim)
        validate_built("v", v, self.kv_heads, self.value_dim)
        key_mask, wide = needed(key_mask), state_dtype(k.dtype)
        with torch.autocast(q.device.type, enabled=False):
            k, v = hide(k, v, key_mask)
            count = self.spec.count(k.shape[2], q_start + q.shape[2] if causal else None)
            found = self._with_null(*self._compress(k.to(wide), v.to(wide), key_mask, count))
            k, v, key_mask = found[0].to(q.dtype), found[1].to(q.dtype), found[2]
            if causal:
                return in_steps(q, k, v, key_mask, self.spec.stride, q_start - self.spec.first_place)
            # As a bias it need not be as large as the scores.
            bias = None if key_mask is None else _bias(key_mask, q)
            return attend(q, k, v, bias=bias)

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> CompressedState:
        """No tokens yet."""
        dtype = validate_initial(batch, dtype)
        empty = KeyValues(
            torch.zeros(batch, self.kv_heads, 0, self.head_dim, dtype=dtype, device=device),
            torch.zeros(batch, self.kv_heads, 0, self.value_dim, dtype=dtype, device=device),
            torch.ones(batch, 0, dtype=torch.bool, device=device),
        )
        return CompressedState(*empty, *empty)

    def prefill(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b g n d"],
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b h n e"], CompressedState]:
        """The causal form, the finished groups, and the tokens behind them."""
        validate_prefill(q, k, v, key_mask)
        out = self(q, k, v, key_mask, causal=True)
        with torch.autocast(q.device.type, enabled=False):
            return out, self._advanced(self.initial_state(len(q), q.dtype, q.device), k, v, key_mask)

    def step(
        self,
        q: Float[Tensor, "b h 1 d"],
        k: Float[Tensor, "b g 1 d"],
        v: Float[Tensor, "b g 1 e"],
        state: CompressedState,
        key_mask: Bool[Tensor, "b 1"] | None = None,
    ) -> tuple[Float[Tensor, "b h 1 e"], CompressedState]:
        """Finish a group if the token does, and look at all finished ones."""
        validate_step(q, k, v, key_mask)
        (b, g, _, d), e = k.shape, v.shape[3]
        m, rest = (state.key_mask.shape[1], state.rest_mask.shape[1]) if isinstance(state, CompressedState) else (0, 0)
        shapes = ((b, g, m, d), (b, g, m, e), (b, m), (b, g, rest, d), (b, g, rest, e), (b, rest))
        validate_state(state, CompressedState, shapes, q)
        with torch.autocast(q.device.type, enabled=False):
            state = self._advanced(state, k, v, key_mask)
            keys, values, shown = self._with_null(*state[:3])
            return attend(q.to(keys.dtype), keys, values, key_mask=shown).to(q.dtype), state

    def for_weights(self) -> "CompressedLayer":
        """The same with the mean of a group as its value: what a group gets, its tokens share equally."""
        even, width = copy.copy(self), self.value_weight.shape[1]
        mean = torch.eye(width, dtype=self.value_weight.dtype, device=self.value_weight.device) / self.spec.taps
        mean = mean.repeat(len(self.value_weight) // width, 1)[..., None].expand(self.value_weight.shape)
        even._parameters = {**self._parameters, "value_weight": nn.Parameter(mean)}
        return even

    def extra_repr(self) -> str:
        """The spec."""
        return repr(self.spec)

    def _compress(
        self, k: Float[Tensor, "b g k d"], v: Float[Tensor, "b g k e"], key_mask: Bool[Tensor, "b k"] | None, count: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The first `count` groups, and which of them hold a real token."""
        stride, shown = self.spec.stride, None
        if key_mask is not None:
            shown = windows(key_mask[:, None, :, None], 1, self.spec.taps, stride, count).any(-1)[:, 0]
        return convolved(k, self.key_weight, stride, count), convolved(v, self.value_weight, stride, count), shown

    def _with_null(
        self, k: Float[Tensor, "b g m d"], v: Float[Tensor, "b g m e"], shown: Bool[Tensor, "b m"] | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The same with the null key in front, if there is one; its value is zero."""
        if self.null_key is None:
            return k, v, shown
        null = self.null_key.to(k.dtype)[None, :, None].expand(len(k), -1, -1, -1)
        shown = None if shown is None else pad(shown, (1, 0), value=True)
        return torch.cat([null, k], 2), pad(v, (0, 0, 1, 0)), shown

    def _advanced(
        self,
        state: CompressedState,
        k: Float[Tensor, "b g n d"],
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None,
    ) -> CompressedState:
        """The state behind some more tokens. Where they finish no group, the finished ones are not copied."""
        done, rest = KeyValues(*state[:3]), joined(EVERYTHING, KeyValues(*state[3:]), key_values(k, v, key_mask))
        count = self.spec.count(rest.length, rest.length)
        if not count:
            return CompressedState(*done, *rest)
        keys, values, shown = self._compress(*rest, count)
        assert shown is not None
        behind = count * self.spec.stride
        left = rest.keys[:, :, behind:], rest.values[:, :, behind:], rest.key_mask[:, behind:]
        return CompressedState(
            *joined(EVERYTHING, done, KeyValues(keys, values, shown)), *(leaf.clone() for leaf in left)
        )


def _bias(shown: Bool[Tensor, "b m"], like: Tensor) -> Float[Tensor, "b 1 1 m"]:
    """0 where a key is visible and -inf where not."""
    bias = torch.zeros(shown.shape, dtype=like.dtype, device=like.device).masked_fill_(~shown, -torch.inf)
    return bias[:, None, None]


@dataclass(frozen=True, repr=False)
class CompressedAttention(Mechanism):
    """Softmax over every `stride` tokens as one: a learned sum of their keys, and one of their values.

    Formula:
        softmax(q conv(k)ᵀ / √d) conv(v): group j is a sum over the tokens stride · j .. stride · j + kernel - 1, each
        times a matrix of its tap.

    Cost:
        O(n² d / stride) time, causally half of that, and O(n d² kernel / stride) for the convolutions; O(n d) memory.
        A decoding state is n / stride keys and values, and the tokens of the group that is not finished.

    Use it:
        In every second layer, between local ones, as in the paper (`recipes/t-dmca.toml`): the window sees what is
        near, this what is far. It divides time by little more than the stride, so on long inputs others are faster.

    Leave it:
        As the only causal layer: up to stride - 1 of the last tokens, a query's own among them, are in no finished
        group yet. Only the last query of a group sees itself.

    Source:
        "Generating Wikipedia by Summarizing Long Sequences" (Liu et al. 2018), section 4.2.3, with kernel and stride 3.
        The paper does not say whether the convolution mixes heads; here each head has its own, as in the common
        port, and `groups=1` mixes all. Keys and values have a convolution each. Left open in the paper: what is
        hidden is zero before the convolution; a group at the end or with holes is the sum over its real tokens; one
        without any is hidden; groups start at multiples of the stride from the first position on, padding or not. No
        bias: on keys it would change nothing, on values it is that of the output projection. The null key is the
        port's; its value stays zero here, so that outputs are linear in the values and zero where nothing is seen.

    Attributes:
        stride: tokens from one group to the next.
        kernel: tokens in a group, at least `stride`, and `stride` if not given.
        groups: groups of the convolution, as of `torch.nn.Conv1d`: `heads`, one for each key head, or 1, mixing all.
        null: whether there is one more key, learned for each head, with a value of zero, that every query sees:
            causally the first ones see nothing else.
    """

    name = "compressed"
    family = "low rank"
    stride: int = 3
    kernel: int | None = None
    groups: Literal["heads", 1] = "heads"
    null: bool = True

    def __post_init__(self) -> None:
        """Refuse options that make no convolution."""
        whole_number("stride", self.stride)
        if isinstance(self.taps, bool) or not isinstance(self.taps, int) or self.taps < self.stride:
            constraint = f"a whole number, at least the stride of {self.stride}, or None"
            raise ValueError(must_be("kernel", constraint, self.kernel))
        if isinstance(self.groups, bool) or self.groups not in ("heads", 1):
            raise ValueError(must_be("groups", "'heads' or 1", self.groups))
        if not isinstance(self.null, bool):
            raise ValueError(must_be("null", "True or False", self.null))

    @property
    def taps(self) -> int:
        """Positions under the kernel."""
        return self.stride if self.kernel is None else self.kernel

    @property
    def first_place(self) -> int:
        """The position whose query is the first to see the first of all keys, and only that; the null key if any."""
        return self.taps - 1 - (self.stride if self.null else 0)

    @property
    def claims(self) -> Claims:
        """All but what goes with weights on tokens: those of a convolution may be negative."""
        return Claims(causal=True, cross=True, any_length=True, any_mask=True, streaming=True, state_size="O(n)")

    def groups_of(self, kv_heads: int) -> int:
        """Groups of the convolution."""
        return kv_heads if self.groups == "heads" else self.groups

    def count(self, keys: int, end: int | None) -> int:
        """How many groups there are; with an `end`, how many of them are finished before that position."""
        every = (keys + self.stride - 1) // self.stride  # as torch.export can follow it
        return every if end is None else min(every, max(0, (end - self.taps) // self.stride + 1))

    def build(
        self,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        layer: int = 0,
    ) -> CompressedLayer:
        """A layer with weights drawn from torch's global generator, as all parameters are."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        return CompressedLayer(self, kv_heads, head_dim, value_dim)

    def cost(
        self,
        n_q: int,
        n_k: int,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        causal: bool = False,
    ) -> Cost:
        """The convolutions, and the groups that queries see; causally also the rows that fill up the last step."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        count = self.count(n_k, n_q if causal else None)
        slots, covered = count + self.null, self.stride * (count - 1) + self.taps if count else 0
        mixed = kv_heads // self.groups_of(kv_heads) * self.taps * kv_heads * (head_dim**2 + value_dim**2)
        sizes, per_pair = (heads, kv_heads, head_dim, value_dim), 2 * (head_dim + value_dim)
        turned = 4 * mixed if self.taps > 1 else 0  # the weights, tap by tap
        found = StepsCost(n_q, heads * n_q * slots, heads * n_q * slots, 0)
        if causal:
            found = steps_cost(n_q, -self.first_place, self.stride, slots, heads, kv_heads, value_dim)
        return Cost(
            flops=per_pair * found.pairs + 2 * count * mixed,
            pairs=found.pairs,
            bytes=tensor_bytes(n_q, n_k, *sizes) + 4 * mixed,
            wasted=per_pair * (found.visited - found.pairs),
            kept=kept_bytes(found.rows, slots + max(n_k, covered), *sizes) + turned + found.kept,
        )

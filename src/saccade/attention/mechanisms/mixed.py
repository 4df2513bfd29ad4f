"""Different mechanisms in groups of heads of one layer, as in the Routing Transformer, half of whose heads are local.

Source: Roy et al. 2021, section 4; Longformer and Big Bird mix patterns, which `PerHead` does without a mixture.

Cost: the sum of its parts.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import nn

from saccade.attention.inputs import AXES, validate, validate_one_sequence
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, check_sizes
from saccade.attention.mechanisms._names import to_mechanism
from saccade.attention.patterns import Pattern
from saccade.attention.record import Record
from saccade.claims import Claims
from saccade.errors import must_be, whole_number
from saccade.shapes import Bool, Float, Tensor

LAYERS = 2**16
"""Parts draw as layers do whose numbers lie so far apart: no model has as many."""

GROWTH: tuple[Literal["", "O(1)", "O(window)", "O(n)"], ...] = ("", "O(1)", "O(window)", "O(n)")
"""How states grow, the smallest first."""

log = logging.getLogger(__name__)


def shares(counts: Sequence[int], heads: int, kv_heads: int) -> tuple[int, ...]:
    """How many of the query heads each part gets, always those of whole key heads.

    The counts themselves, where they add up to the heads. Otherwise they are proportions: every part gets a key head,
    and each further one goes to the part that has the least in proportion. With fewer heads than parts the first ones
    get one each.

    Raises:
        ValueError: counts that cut the heads of a key head in two, or fewer key heads than parts.
    """
    group = heads // kv_heads
    if sum(counts) == heads:
        if any(count % group for count in counts):
            raise ValueError(must_be("parts", f"of whole key heads, {group} heads each", tuple(counts)))
        return tuple(counts)
    if kv_heads < len(counts) <= heads:
        raise ValueError(must_be("kv_heads", f"at least {len(counts)}, one for each part", kv_heads))
    given = [0] * len(counts)
    for _ in range(kv_heads):
        given[min(range(len(counts)), key=lambda part: given[part] / counts[part])] += 1
    log.info("mixed: of %d heads the parts get %s", heads, [group * each for each in given])
    return tuple(group * each for each in given)


class MixedState(NamedTuple):
    """The states of the parts."""

    parts: tuple[Any, ...]


class MixedLayer(AttentionLayer):
    """Layers that share out the heads.

    Attributes:
        parts: the layers, in the order of their heads.
        heads: query heads of each.
        kv_heads: key heads of each.
        reads: what each reads of queries, keys and values.
    """

    def __init__(
        self,
        parts: Sequence[AttentionLayer],
        heads: tuple[int, ...],
        kv_heads: tuple[int, ...],
        reads: tuple[tuple[str, ...], ...],
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.heads, self.kv_heads, self.reads = heads, kv_heads, reads

    def forward(
        self,
        q: Float[Tensor, "b h q d"] | None,
        k: Float[Tensor, "b g k d"] | None,
        v: Float[Tensor, "b g k e"],
        key_mask: Bool[Tensor, "b k"] | None = None,
        causal: bool = False,
        q_start: int = 0,
        record: Record | None = None,
        bias: Float[Tensor, "#b h #q #k"] | None = None,
    ) -> Float[Tensor, "b h q e"]:
        """Each part on its heads, side by side."""
        if self._any_reads("k"):
            validate(q, k, v, key_mask, q_start)  # pyright: ignore[reportArgumentType] - it refuses what is no tensor
        if self._any_reads("q") and not all("q" in reads for reads in self.reads):
            one = not self._any_reads("k")
            validate_one_sequence(q, k, v, key_mask, q_start, one)  # pyright: ignore[reportArgumentType]
        sections = self._sections(q, k, v)
        options = key_mask, causal, q_start, record
        # Only parts that are exact take a bias.
        biases = [{} for _ in self.heads] if bias is None else [{"bias": own} for own in bias.split(self.heads, 1)]
        calls = zip(self.parts, sections, biases, strict=True)
        return torch.cat([part(*section, *options, **own) for part, section, own in calls], 1)

    def _sections(self, *tensors: Tensor | None) -> list[tuple[Any, Any, Any]]:
        """The queries, keys and values of each part, as views; `None` for what it does not read.

        Raises:
            TypeError, ValueError: what is no tensor with these heads.
        """
        found = []
        for (name, axes), tensor, sizes in zip(
            AXES.items(), tensors, (self.heads, self.kv_heads, self.kv_heads), strict=True
        ):
            if not self._any_reads(name):
                found.append([None] * len(sizes))
                continue
            if not isinstance(tensor, Tensor):
                raise TypeError(must_be(name, f"a tensor {axes}", type(tensor).__name__))
            if tensor.ndim != 4 or tensor.shape[1] != sum(sizes):
                raise ValueError(must_be(name, f"of shape {axes} with {sum(sizes)} heads", tuple(tensor.shape)))
            parts = tensor.split(sizes, 1)
            found.append([part if name in reads else None for part, reads in zip(parts, self.reads, strict=True)])
        return list(zip(*found, strict=True))

    def _any_reads(self, name: str) -> bool:
        return any(name in reads for reads in self.reads)

    def after_step(self) -> None:
        """Tell the parts."""
        for part in self._layers():
            part.after_step()

    def share_with(self, first: AttentionLayer) -> None:
        """Each part with the same part of the first layer.

        Raises:
            ValueError: a layer of other parts.
        """
        if not isinstance(first, MixedLayer) or first.heads != self.heads:
            raise ValueError(must_be("first", f"a MixedLayer with the heads {self.heads}", first))
        for part, other in zip(self._layers(), first._layers(), strict=True):
            part.share_with(other)

    def for_weights(self) -> AttentionLayer:
        """The same of parts that return theirs."""
        parts = [part.for_weights() for part in self._layers()]
        if all(new is old for new, old in zip(parts, self.parts, strict=True)):
            return self
        return MixedLayer(parts, self.heads, self.kv_heads, self.reads).train(self.training)

    def _layers(self) -> list[AttentionLayer]:
        return [cast(AttentionLayer, part) for part in self.parts]

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> MixedState:
        """Those of the parts."""
        return MixedState(tuple(part.initial_state(batch, dtype, device) for part in self._layers()))

    def prefill(
        self,
        q: Float[Tensor, "b h n d"] | None,
        k: Float[Tensor, "b g n d"] | None,
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b h n e"], MixedState]:
        """Each part on its heads."""
        sections = self._sections(q, k, v)
        found = [part.prefill(*section, key_mask) for part, section in zip(self._layers(), sections, strict=True)]
        return torch.cat([out for out, _ in found], 1), MixedState(tuple(state for _, state in found))

    def step(
        self,
        q: Float[Tensor, "b h 1 d"] | None,
        k: Float[Tensor, "b g 1 d"] | None,
        v: Float[Tensor, "b g 1 e"],
        state: MixedState,
        key_mask: Bool[Tensor, "b 1"] | None = None,
    ) -> tuple[Float[Tensor, "b h 1 e"], MixedState]:
        """Each part on its heads, with its state."""
        if not isinstance(state, MixedState) or len(state.parts) != len(self.parts):
            constraint = f"a MixedState of {len(self.parts)} parts from initial_state, prefill or step"
            raise TypeError(must_be("state", constraint, type(state).__name__))
        sections = zip(self._layers(), self._sections(q, k, v), state.parts, strict=True)
        found = [part.step(*section, before, key_mask) for part, section, before in sections]
        return torch.cat([out for out, _ in found], 1), MixedState(tuple(after for _, after in found))

    def extra_repr(self) -> str:
        """The heads."""
        return f"heads={self.heads}"


@dataclass(frozen=True, repr=False)
class MixedAttention(Mechanism):
    """Different mechanisms in groups of heads: the first heads take the first part, and so on.

    Formula:
        out[heads of part i] = part i (q, k, v of those heads)

    Cost:
        The sum of the parts: time, memory and decoding state; their outputs are copied side by side. Training may
        keep more than the parts by themselves, at most the whole inputs and output once: parts keep views of them.

    Use it:
        Where one kind of head misses something: local heads for neighbours beside heads of any kind that see far.

    Leave it:
        For a mixture of patterns alone: `PerHead([...])` is one softmax under one layout.

    Source:
        The Routing Transformer (Roy et al. 2021), which makes half of its heads local. Claims are the conjunction of
        those of the parts; the state is as large as that of the largest.

    Attributes:
        parts: pairs of a mechanism (name, expression, spec or pattern) and a number of heads. A layer with as many
            heads as they add up to has exactly those. In any other the numbers are proportions: every part gets at
            least one key head with its query heads, and each further one goes to the part with the least in
            proportion, the first of several. A layer with fewer heads than parts has only the first parts.
    """

    name = "mixed"
    family = "mixtures"
    parts: Sequence[Sequence[str | Mechanism | Pattern | int]] = (("local", 4), ("linear", 4))

    def __post_init__(self) -> None:
        """Read the names.

        Raises:
            ValueError: no parts, what is no pair, or an unknown name; the message names it.
        """
        if isinstance(self.parts, str) or not isinstance(self.parts, Sequence) or not self.parts:
            raise ValueError(must_be("parts", "pairs of a mechanism and a number of heads", self.parts))
        object.__setattr__(self, "parts", tuple(_part(part) for part in self.parts))

    @property
    def specs(self) -> tuple[Mechanism, ...]:
        """The mechanisms of the parts."""
        return tuple(cast(Mechanism, spec) for spec, _ in self.parts)

    @property
    def counts(self) -> tuple[int, ...]:
        """Their numbers of heads."""
        return tuple(cast(int, count) for _, count in self.parts)

    @property
    def inputs(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride] - it depends on the parts
        """All that any part reads."""
        read = {name: None for spec in self.specs for name in spec.inputs}
        return tuple(sorted(read, key=tuple(AXES).index))

    @property
    def claims(self) -> Claims:
        """What all parts promise."""
        each = [spec.claims for spec in self.specs]
        names = [field.name for field in fields(Claims) if field.name != "state_size"]
        both = {name: all(getattr(claims, name) for claims in each) for name in names}
        largest = max(GROWTH.index(claims.state_size) for claims in each)
        return Claims(**both, state_size=GROWTH[largest] if both["streaming"] else "")

    def build(
        self,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        layer: int = 0,
    ) -> MixedLayer:
        """A layer for each part that gets heads. Parts draw differently, the first as it would alone.

        Raises:
            ValueError: heads that cannot be shared out so, or sizes that no layer can have.
        """
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        group, first, layers, read = heads // kv_heads, 0, [], []
        sizes = shares(self.counts, heads, kv_heads)
        for spec, size in zip(self.specs, sizes, strict=True):
            if size:
                layers.append(spec.build(size, head_dim, size // group, value_dim, layer + LAYERS * first))
                read.append(spec.inputs)
            first += size
        own = tuple(size for size in sizes if size)
        return MixedLayer(layers, own, tuple(size // group for size in own), tuple(read))

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
        """The sum of the parts."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        sizes, group = shares(self.counts, heads, kv_heads), heads // kv_heads
        costs = [
            spec.cost(n_q, n_k, size, head_dim, size // group, value_dim, causal)
            for spec, size in zip(self.specs, sizes, strict=True)
            if size
        ]
        return Cost(**{field.name: sum(getattr(cost, field.name) for cost in costs) for field in fields(Cost)})

    def behind(self, tokens: int) -> "MixedAttention":
        """Each part behind them.

        Raises:
            ValueError: a part that cannot have them.
        """
        return replace(
            self, parts=tuple((spec.behind(tokens), count) for spec, count in zip(self.specs, self.counts, strict=True))
        )

    def __repr__(self) -> str:
        """The name alone for the default, which is kept as specs and not as it is written."""
        return self.name if self == MixedAttention() else super().__repr__()


def _part(part: object) -> tuple[Mechanism, int]:
    """One part as it is kept."""
    if isinstance(part, str) or not isinstance(part, Sequence) or len(part) != 2:
        raise ValueError(must_be("each of parts", "a mechanism and a number of heads", part))
    chosen, count = part
    whole_number("heads of a part", count)
    spec = to_mechanism(chosen)
    if further := set(spec.inputs) - set(AXES):
        raise ValueError(
            must_be("a part", f"one that reads {', '.join(AXES)} alone, without {min(further)}", str(spec))
        )
    return spec, cast(int, count)

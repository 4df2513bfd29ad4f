"""A layer whose gates are read off its keys: a gated layer as one of queries, keys and values alone.

So whatever calls layers with those three, such as `saccade check`, can call it too. Reading off the first number of
each key keeps what there is to look for: a gate that leaks leaks from the token that it belongs to.
"""

from typing import Any

import torch

from saccade.attention.mechanism import AttentionLayer
from saccade.attention.record import Record
from saccade.shapes import Bool, Float, Tensor


class GatesFromKeys(AttentionLayer):
    """A gated layer, always causal, in which the first number of a key is the logit of its gate.

    Args:
        layer: takes `gate`, and has only a causal form.
    """

    def __init__(self, layer: AttentionLayer) -> None:
        super().__init__()
        self.gated: Any = layer

    def forward(
        self,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b g k d"],
        v: Float[Tensor, "b g k e"],
        key_mask: Bool[Tensor, "b k"] | None = None,
        causal: bool = True,
        q_start: int = 0,
        record: Record | None = None,
    ) -> Float[Tensor, "b h q e"]:
        """The causal form, also where `causal` is not asked for."""
        return self.gated(q, k, v, key_mask, True, q_start, record, gate=k[..., :1])

    def initial_state(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Any:
        """That of the layer."""
        return self.gated.initial_state(batch, dtype, device)

    def prefill(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b g n d"],
        v: Float[Tensor, "b g n e"],
        key_mask: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b h n e"], Any]:
        """That of the layer."""
        return self.gated.prefill(q, k, v, key_mask, gate=k[..., :1])

    def step(
        self,
        q: Float[Tensor, "b h 1 d"],
        k: Float[Tensor, "b g 1 d"],
        v: Float[Tensor, "b g 1 e"],
        state: Any,
        key_mask: Bool[Tensor, "b 1"] | None = None,
    ) -> tuple[Float[Tensor, "b h 1 e"], Any]:
        """That of the layer."""
        return self.gated.step(q, k, v, state, key_mask, gate=k[..., :1])

    def after_step(self) -> None:
        """That of the layer."""
        self.gated.after_step()

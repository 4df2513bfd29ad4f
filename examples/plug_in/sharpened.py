"""A mechanism in a package of its own: `pip install examples/plug_in`, and then `saccade check sharpened`.

Saccade finds it by the entry point in pyproject.toml: layers, recipes, mixtures and every command know its name.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from saccade import Causal, Full, attend
from saccade.attention import AttentionLayer, Cost, Mechanism, to_mechanism
from saccade.attention.record import Record
from saccade.claims import Claims


class SharpenedLayer(AttentionLayer):
    """Softmax attention on queries that are scaled by a learned number for each head."""

    def __init__(self, heads: int, start: int | float) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.full((heads, 1, 1), float(start)))

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        key_mask: Tensor | None = None,
        causal: bool = False,
        q_start: int = 0,
        record: Record | None = None,
    ) -> Tensor:
        """As every layer: `AttentionLayer.forward` says what each input is."""
        pattern = Causal() if causal else Full()
        return attend(q * self.sharpness.to(q.dtype), k, v, pattern, key_mask=key_mask, q_start=q_start)


@dataclass(frozen=True, repr=False)  # Mechanism prints it as the expression that rebuilds it
class SharpenedAttention(Mechanism):
    """Softmax attention; each head learns how sharp it is.

    Attributes:
        start: the sharpness at the start of training; at 1 it is plain attention.
    """

    name = "sharpened"
    start: int | float = 1

    @property
    def claims(self) -> Claims:
        """What `saccade check sharpened` then holds it to."""
        return Claims(causal=True, cross=True, any_length=True, any_mask=True, normalised=True, unordered=True)

    def build(
        self, heads: int, head_dim: int, kv_heads: int | None = None, value_dim: int | None = None, layer: int = 0
    ) -> SharpenedLayer:
        """A layer with one number for each head."""
        return SharpenedLayer(heads, self.start)

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
        """As full attention; training also keeps the queries before they are scaled."""
        full = to_mechanism("full").cost(n_q, n_k, heads, head_dim, kv_heads, value_dim, causal)
        return replace(full, kept=full.kept + 4 * n_q * heads * head_dim)

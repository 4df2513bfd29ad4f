"""Linformer: keys and values projected from n positions to a fixed number of rows, and softmax over those.

Source: "Linformer: Self-Attention with Linear Complexity" (Wang et al. 2020, arXiv 2006.04768), equation 7.

Cost: O(n r d) time; O(n d + r d) memory and up to 2 g r n parameters. `r` is the rank.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import nn

from saccade.attention.dispatch import attend
from saccade.attention.inputs import hide, needed, validate
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, check_sizes, kept_bytes, tensor_bytes
from saccade.attention.record import Record
from saccade.claims import Claims
from saccade.errors import must_be, unknown, whole_number
from saccade.shapes import Bool, Float, Tensor

SHARINGS = ("none", "headwise", "key_value", "layerwise")


def projected(matrix: Float[Tensor, "s r n"], x: Float[Tensor, "b g n d"]) -> Float[Tensor, "b g r d"]:
    """The matrix of each head times its keys or values. `s` matrices for `g` heads: 1, or as many."""
    b, g, _, d = x.shape
    # All that share a matrix stand in one product: its gradient is summed there, and not as one matrix for each.
    together = rearrange(x, "b (s t) n d -> s n (b t d)", s=len(matrix))
    rows = torch.bmm(matrix.to(x.dtype), together)
    return rearrange(rows, "s r (b t d) -> b (s t) r d", b=b, t=g // len(matrix), d=d)


class LinformerLayer(AttentionLayer):
    """Softmax attention over projected keys and values.

    Attributes:
        E: the paper's projection of keys, one for each key head or one for all; `None` where an earlier layer has it.
        F: that of values; `None` where E is that, too.
    """

    def __init__(self, spec: "LinformerAttention", kv_heads: int) -> None:
        super().__init__()
        self.spec = spec
        shape = kv_heads if spec.sharing == "none" else 1, spec.rank, spec.max_length
        self.E = nn.Parameter(torch.empty(shape))
        self.F = nn.Parameter(torch.empty(shape)) if spec.sharing in ("none", "headwise") else None
        self._first: tuple[LinformerLayer, ...] = ()
        for matrix in self.parameters():
            nn.init.normal_(matrix, std=spec.rank**-0.5)

    def share_with(self, first: AttentionLayer) -> None:
        """With layerwise sharing, read the matrix of `first` instead of having one.

        Raises:
            ValueError: a layer of another spec.
        """
        if not isinstance(first, LinformerLayer) or first.spec != self.spec:
            raise ValueError(must_be("first", f"a layer of {self.spec!r}", first))
        if self.spec.sharing == "layerwise":
            # In a tuple it is no submodule: its matrix is counted, saved and moved once, as that of its own layer.
            self._first, self.E = (first,), None

    def matrices(self) -> tuple[Float[Tensor, "s r n"], Float[Tensor, "s r n"]]:
        """E and F, wherever they are kept."""
        if self._first:
            return self._first[0].matrices()
        assert self.E is not None
        return self.E, self.E if self.F is None else self.F

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
        """Softmax over E k, of F v; what is hidden is zero before it is projected.

        Raises:
            ValueError: `causal`, or more keys than `max_length`.
        """
        validate(q, k, v, key_mask, q_start)
        self.spec.check(k.shape[2], causal)
        k, v = hide(k, v, needed(key_mask))
        with torch.autocast(q.device.type, enabled=False):
            e, f = (_first_columns(matrix, k.shape[2]) for matrix in self.matrices())
            return attend(q, projected(e, k), projected(f, v))

    def extra_repr(self) -> str:
        """The spec."""
        return repr(self.spec)


def _first_columns(matrix: Float[Tensor, "s r n"], length: int) -> Float[Tensor, "s r k"]:
    # A slice of everything is left out: its gradient would be copied into zeros of the same size.
    return matrix if matrix.shape[2] == length else matrix[:, :, :length]


@dataclass(frozen=True, repr=False)
class LinformerAttention(Mechanism):
    """Softmax over a fixed number of rows, each a learned sum over all positions.

    Formula:
        softmax(q (E k)ᵀ / √d) (F v), with E and F of shape [rank, max_length].

    Cost:
        O(n rank d) time, O(n d) memory; rank · max_length parameters for each matrix. No decoding state.

    Use it:
        In an encoder whose inputs have about one length, where a few hundred learned mixtures of positions are enough.

    Leave it:
        For generation: every row mixes all positions, so that nothing in it is causal. Where lengths vary much: a
        shorter input uses the first columns of E and F only. Its rows are then sums of fewer tokens, and at the start
        of training scores and outputs grow as √(length / rank) for independent tokens. A position means something to
        E, so inputs that are shifted, by padding on the left say, give other outputs.

    Source:
        "Linformer: Self-Attention with Linear Complexity" (Wang et al. 2020), equation 7 and the three kinds of
        sharing of section 4. The paper has padding nowhere; here what is hidden is set to zero before it is
        projected, and there is no bias, so that it adds nothing. E and F begin as draws of N(0, 1 / rank), the
        matrix R of the paper's proofs; its authors' code draws them uniformly, from a range that shrinks with
        max_length. The headwise default is that of the authors' code. Projections other than matrices are left out.

    Attributes:
        rank: the paper's k: rows that are attended to.
        max_length: the most keys; columns of E and F.
        sharing: `none` (E and F for each key head), `headwise` (one E and one F for all heads), `key_value` (E is F,
            too) or `layerwise` (one matrix for all heads, keys and values, and for all layers of an encoder that have
            this spec; as a part of `mixed`, for the same part of the layers that have that mixture).
    """

    name = "linformer"
    family = "low rank"
    rank: int = 256
    max_length: int = 4096
    sharing: Literal["none", "headwise", "key_value", "layerwise"] = "headwise"

    def __post_init__(self) -> None:
        """Refuse options that make no projection."""
        for option in ("rank", "max_length"):
            whole_number(option, getattr(self, option))
        if self.sharing not in SHARINGS:
            raise ValueError(unknown("sharing", self.sharing, SHARINGS))

    @property
    def claims(self) -> Claims:
        """Any mask, and other keys than queries. Weights are normalised over rows, and not over tokens."""
        return Claims(cross=True, any_length=True, any_mask=True)

    def check(self, keys: int, causal: bool) -> None:
        """Refuse what cannot be projected.

        Raises:
            ValueError: `causal`, or more keys than `max_length`.
        """
        if causal:
            reason = "each projected key of linformer mixes all positions, later ones with earlier ones"
            raise ValueError(must_be("causal", f"False, as {reason}", causal))
        if keys > self.max_length:
            name, constraint = f"number of keys of linformer(max_length={self.max_length})", "at most its max_length"
            raise ValueError(must_be(name, f"{constraint} (give a larger one for longer inputs)", keys))

    def build(
        self,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        layer: int = 0,
    ) -> LinformerLayer:
        """A layer with E and F drawn from torch's global generator, as all parameters are."""
        kv_heads, _ = check_sizes(heads, head_dim, kv_heads, value_dim)
        return LinformerLayer(self, kv_heads)

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
        """Two projections, then dense attention over `rank` keys; for any length, as if `max_length` were enough.

        Raises:
            ValueError: `causal`.
        """
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        self.check(0, causal)
        sizes, per_pair = (heads, kv_heads, head_dim, value_dim), 2 * (head_dim + value_dim)
        pairs, rows = heads * n_q * self.rank, kv_heads * self.rank
        matrices = {"none": 2 * kv_heads, "headwise": 2}.get(self.sharing, 1)
        return Cost(
            flops=per_pair * (pairs + rows * n_k),
            pairs=pairs,
            bytes=tensor_bytes(n_q, n_k, *sizes) + 4 * matrices * self.rank * n_k,
            kept=kept_bytes(n_q, n_k + self.rank, *sizes),
        )

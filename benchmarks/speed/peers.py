# pyright: reportMissingImports=false
"""The same attention from other libraries. What is no attention (projections, masks that stay) is left out of the time.

Hugging Face's layers project a model's hidden states by themselves; here their projections hand over ready queries,
keys and values, so that attention alone is timed, as in the other rows.
"""

import os
import shutil
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn

from saccade import Global, Local
from speed.rows import Row, close, equals, under
from speed.timing import Call

COMPUTES = """\
What the peers compute, checked before it is timed:
  FlexAttention          the window, equal to ours; compiled by torch, block mask made beforehand; no backward on CPU
  local-attention        the window, equal to ours (exact_windowsize)
  HF Longformer          the window of 128 each side, equal to ours, no global tokens
  HF Big Bird            the same window, global and as many random blocks, drawn anew in each call and for each head
                         (training mode: in evaluation all its random blocks are the first block). At 1,024, 3,072
                         and 4,096 the second last block of queries may count a block of its window twice. It returns
                         all n x n weights as well, and not timed is where those alone take more than 4 GB"""


class UnavailableError(Exception):
    """A peer that cannot run here, and why."""


class Given(nn.Module):
    """In place of a projection: a tensor that is there already."""

    tensor: Tensor

    def forward(self, hidden: Tensor) -> Tensor:
        """That tensor, whatever the hidden states."""
        return self.tensor


def give(layer: nn.Module, **tensors: Tensor) -> None:
    """Queries, keys and values to a layer in place of its projections."""
    for name, tensor in tensors.items():
        setattr(layer, name, Given())
        getattr(layer, name).tensor = tensor


def flex(heads: int, n: int, dim: int, right: int) -> Call:
    """FlexAttention, of torch, with a window."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if not shutil.which(os.environ.get("CXX", "g++")):
        raise UnavailableError("torch.compile needs a C++ compiler, g++ or what CXX names")

    def seen(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q - k <= 128) & (k - q <= right)

    mask = create_block_mask(seen, None, None, n, n, device="cpu")
    return partial(torch.compile(flex_attention, dynamic=False), block_mask=mask)


def local_attention(heads: int, n: int, dim: int, causal: bool) -> Call:
    """local-attention's layer on queries, keys and values."""
    from local_attention import LocalAttention

    return LocalAttention(128, causal=causal, exact_windowsize=True)


def longformer(heads: int, n: int, dim: int) -> Call:
    """Hugging Face's sliding window."""
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    config = LongformerConfig(hidden_size=heads * dim, num_attention_heads=heads, attention_window=[256])
    layer = LongformerSelfAttention(config, 0).eval()
    hidden, masked = torch.empty(1, n, heads * dim), torch.zeros(1, n, dtype=torch.bool)

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        query, key, value = (rearrange(x, "b h n d -> n b (h d)") for x in (q, k, v))
        give(layer, query=query.clone(), key=key, value=value)  # it divides the queries in place
        (out,) = layer(hidden, torch.zeros(1, n), masked, is_global_attn=False)
        return rearrange(out, "b n (h d) -> b h n d", h=heads)

    return call


def big_bird(heads: int, n: int, dim: int) -> Call:
    """Hugging Face's block-sparse attention."""
    from transformers import BigBirdConfig, BigBirdModel
    from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention

    if (weights := 4 * heads * n * n) > 4e9:
        raise UnavailableError(f"not timed: the n x n weights that it returns alone take {weights / 1e9:.1f} GB")
    sizes = {"hidden_size": heads * dim, "num_attention_heads": heads, "max_position_embeddings": n}
    config = BigBirdConfig(**sizes, block_size=64, num_random_blocks=3)
    layer = BigBirdBlockSparseAttention(config, seed=0).train()
    blocks, band, rows, columns = BigBirdModel.create_masks_for_block_sparse_attn(torch.ones(1, n), 64)
    hidden = torch.empty(1, n, heads * dim)

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        query, key, value = (rearrange(x, "b h n d -> b n (h d)") for x in (q, k, v))
        give(layer, query=query, key=key, value=value)
        out = layer(hidden, band, rows, columns, blocks, blocks)[0]
        return rearrange(out, "b n (h d) -> b h n d", h=heads)

    return call


def is_big_bird(row: Row) -> None:
    """The weights, from the identity as values: a softmax over window, global and random blocks, all different."""
    n, block = 1280, 64
    q, k = torch.randn(2, 1, 1, n, n).unbind()
    weights = row.build(1, n, n)(q, k, torch.eye(n)[None, None])
    seen = weights > 0
    scores = (q @ k.mT / n**0.5).masked_fill(~seen, -torch.inf)
    close(weights, scores.softmax(-1))
    assert seen[(Local(1, block=block) | Global(block, last=block)).dense(n, n).expand_as(seen)].all()
    blocks = seen[0, 0, ::block, ::block].sum(-1)
    assert (blocks[3:-3] == 3 + 2 + 3).all(), blocks


def peer_rows() -> list[tuple[str, Row]]:
    """The package that is asked for its version, and the row."""
    window, causal = equals(under(Local(128))), equals(under(Local(128, 0)))
    return [
        ("torch", Row("FlexAttention", partial(flex, right=128), window, backward=False)),
        ("torch", Row("FlexAttention, causal", partial(flex, right=0), causal, backward=False)),
        ("local-attention", Row("local-attention", partial(local_attention, causal=False), window)),
        ("local-attention", Row("local-attention, causal", partial(local_attention, causal=True), causal)),
        ("transformers", Row("HF Longformer", longformer, window, tokens_first=True)),
        ("transformers", Row("HF Big Bird", big_bird, is_big_bird, tokens_first=True)),
    ]

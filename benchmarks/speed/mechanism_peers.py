# pyright: reportMissingImports=false
"""Mechanisms of other libraries that find their own pattern, or compress keys: attention alone, without projections."""

import contextlib
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn

from speed.peers import UnavailableError, give
from speed.rows import Row, equals
from speed.timing import Call

COMPUTES = """\
What the peers compute, with the same sizes:
  reformer-pytorch            buckets of 64, 4 rounds, shared queries and keys, across buckets, duplicates counted
  routing-transformer         32 clusters, a window of n / 32; centroids move only in training, here they rest
  sinkhorn-transformer        blocks of 128, its attention sort net; its values are those of sorted *keys*
  linformer                   rank 256, one matrix for keys and one for values, for all heads
  memory-compressed-att.      stride 3, a convolution for each head, one null slot
  linear-attn.-transformer    efficient attention, over sqrt(d) and so equal to ours; causally another operator: in
                              buckets of 64, of which each sees the ones before it, with one denominator for all
  performer-pytorch           256 features; causal without its CUDA extension, which is how it runs on a CPU"""


def reformer(heads: int, n: int, dim: int) -> Call:
    """Reads queries only, as ours."""
    from reformer_pytorch import LSHAttention

    layer = LSHAttention(bucket_size=64, n_hashes=4).eval()
    return lambda q, k, v: layer(q.flatten(0, 1), v.flatten(0, 1))[0].unflatten(0, q.shape[:2])


def routing(heads: int, n: int, dim: int) -> Call:
    """In evaluation, where nothing moves; called once before, as its first call makes its centroids."""
    from routing_transformer.routing_transformer import KmeansAttention

    layer = KmeansAttention(32, -(-n // 32), heads, dim)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer(*(torch.randn(1, heads, n, dim, generator=draws) for _ in range(3)))
    layer.eval()
    return lambda q, k, v: layer(q, k, v)[0]


def sinkhorn(heads: int, n: int, dim: int) -> Call:
    """Balanced sorting, as ours."""
    from sinkhorn_transformer.sinkhorn_transformer import SinkhornAttention

    return SinkhornAttention(128, heads * dim, dim, heads, n, non_permutative=False).eval()


def linformer(heads: int, n: int, dim: int) -> Call:
    """Its projections hand over what is there."""
    from linformer import LinformerSelfAttention

    layer = LinformerSelfAttention(heads * dim, n, k=256, heads=heads)
    layer.to_out = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries, keys, values = (rearrange(x, "b h n d -> b n (h d)") for x in (q, k, v))
        give(layer, to_q=queries, to_k=keys, to_v=values)
        return rearrange(layer(queries), "b n (h d) -> b h n d", h=heads)

    return call


def compressed(heads: int, n: int, dim: int) -> Call:
    """Its one projection hands over queries, keys and values side by side."""
    from memory_compressed_attention import MemoryCompressedAttention

    layer = MemoryCompressedAttention(heads * dim, heads)
    layer.to_out = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        together = torch.cat([rearrange(x, "b h n d -> b n (h d)") for x in (q, k, v)], -1)
        give(layer, to_qkv=together)
        return rearrange(layer(together[..., : heads * dim]), "b n (h d) -> b h n d", h=heads)

    return call


def linear_attention(heads: int, n: int, dim: int, causal: bool) -> Call:
    """Its functions on queries, keys and values."""
    from linear_attention_transformer.linear_attention_transformer import causal_linear_attn, linear_attn

    return partial(causal_linear_attn, bucket_size=64) if causal else linear_attn


def over_root(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Shen et al. 2018, equation 8, divided by the root of the head dim."""
    return q.softmax(-1) @ (k.softmax(-2).mT @ v) / q.shape[-1] ** 0.5


def performer(heads: int, n: int, dim: int, causal: bool) -> Call:
    """One set of directions for all heads. Causally it keeps the running sums of all positions."""
    if causal and n > 4096:
        raise UnavailableError("not run: its running sums of all positions take some 35 GB")
    from performer_pytorch import FastAttention

    with contextlib.redirect_stdout(None):  # it says that it has no CUDA extension
        return FastAttention(dim, 256, causal=causal).eval()


def runs(row: Row) -> None:
    """A peer's numbers depend on its own draws: here only that it runs, forward and backward, and gives numbers."""
    inputs = [torch.randn(1, 2, 1024, 16, requires_grad=True) for _ in range(3)]
    out = row.build(2, 1024, 16)(*inputs)
    out.sum().backward()
    assert out.shape == (1, 2, 1024, 16)
    assert out.isfinite().all()


def mechanism_peers() -> list[tuple[str, Row]]:
    """The package that is asked for its version, and the row."""
    peer = partial(Row, check=runs)
    return [
        ("reformer-pytorch", peer("reformer-pytorch", reformer)),
        ("routing-transformer", peer("routing-transformer", routing)),
        ("sinkhorn-transformer", peer("sinkhorn-transformer", sinkhorn)),
        ("linformer", peer("linformer", linformer, tokens_first=True)),
        ("memory-compressed-attention", peer("memory-compressed-att.", compressed, tokens_first=True)),
        (
            "linear-attention-transformer",
            Row("linear-attn.-transformer", partial(linear_attention, causal=False), equals(over_root)),
        ),
        (
            "linear-attention-transformer",
            peer("linear-attn.-t., causal", partial(linear_attention, causal=True)),
        ),
        ("performer-pytorch", peer("performer-pytorch", partial(performer, causal=False))),
        ("performer-pytorch", peer("performer-pytorch causal", partial(performer, causal=True))),
    ]

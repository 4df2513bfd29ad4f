"""Specs beside the patterns they stand for, and inputs, for the tests of mechanisms."""

import torch

from saccade import Full, Global, Local, Strided, big_bird, longformer, sparse_transformer
from saccade.attention import MECHANISMS

B, H, G, D, E = 2, 6, 3, 5, 7
SPECS = {
    "full": MECHANISMS["full"](),
    "sparse": MECHANISMS["sparse"](Local(3) | Global(2)),
    "sparse_default": MECHANISMS["sparse"](),
    "local": MECHANISMS["local"](left=5, right=2),
    "local_default": MECHANISMS["local"](),
    "strided": MECHANISMS["strided"](stride=3, steps=2),
    "sparse_transformer": MECHANISMS["sparse_transformer"](stride=4),
    "longformer": MECHANISMS["longformer"](window=6, first=2, positions=(11, 5)),
    "longformer_default": MECHANISMS["longformer"](),
    "big_bird": MECHANISMS["big_bird"](block=4, random_blocks=2, seed=9),
    "big_bird_heads": MECHANISMS["big_bird"](block=4, random_blocks=1, per_head=True),
    "efficient": MECHANISMS["efficient"](),
    "linear": MECHANISMS["linear"](),
    "linear_dpfp": MECHANISMS["linear"](feature="dpfp", nu=2),
    "linear_taylor": MECHANISMS["linear"](feature="taylor"),
    "linear_hedgehog": MECHANISMS["linear"](feature="hedgehog"),
    "rfa": MECHANISMS["rfa"](features=64, temperature=0.8, seed=3),
    "rfa_arccos": MECHANISMS["rfa"](features=6, kernel="arccos"),
    "performer": MECHANISMS["performer"](features=12),
    "linformer": MECHANISMS["linformer"](rank=4, max_length=150),
    "linformer_apart": MECHANISMS["linformer"](rank=4, max_length=150, sharing="none"),
    "compressed": MECHANISMS["compressed"](),
    "compressed_mixed": MECHANISMS["compressed"](stride=2, kernel=4, groups=1, null=False),
    "sinkhorn": MECHANISMS["sinkhorn"](block=8, iterations=5, gumbel=0),
    "sinkhorn_cut": MECHANISMS["sinkhorn"](block=8, sort_cut=2, gumbel=0),
    "sinkhorn_net": MECHANISMS["sinkhorn"](block=8, scores="linear", max_length=100, gumbel=0),
    "full_dot": MECHANISMS["full"](score="dot"),
    "full_cosine": MECHANISMS["full"](score="cosine", temperature=0.5),
    "full_additive": MECHANISMS["full"](score="additive", hidden=4),
    "full_relu": MECHANISMS["full"](weights="relu"),
    "full_top_k": MECHANISMS["full"](weights="top_k", top_k=3),
    "mixed": MECHANISMS["mixed"]((("local(left=5, right=2)", 4), ("linear", 2))),
    "mixed_default": MECHANISMS["mixed"](),
    "lsh": MECHANISMS["lsh"](bucket=4, rounds=2, same_bucket=True, unique=True, causal_buckets=6, seed=3),
    "routing": MECHANISMS["routing"](clusters=5, seed=3),
    "synthesizer": MECHANISMS["synthesizer"](max_length=150),
    "synthesizer_fixed": MECHANISMS["synthesizer"]("fixed", max_length=150, seed=3),
    "synthesizer_mixed": MECHANISMS["synthesizer"]("random+dot", max_length=150),
}
PATTERNS = {
    "full": Full(),
    "sparse": Local(3) | Global(2),
    "sparse_default": Local(128),
    "local": Local(5, 2),
    "local_default": Local(128),
    "strided": Strided(3, steps=2),
    "sparse_transformer": sparse_transformer(4, causal=False),
    "longformer": longformer(window=6, first=2, positions=(5, 11)),
    "longformer_default": Local(256) | Global(1),
    "big_bird": big_bird(block=4, random_blocks=2, seed=9),
    "big_bird_heads": big_bird(block=4, random_blocks=1, per_head=True),
}


def inputs(n_q, n_k, dtype=torch.float64, batch=B, groups=G):
    generator = torch.Generator().manual_seed(n_q + 100 * n_k)
    shapes = (batch, H, n_q, D), (batch, groups, n_k, D), (batch, groups, n_k, E), (batch, H, n_q, E)
    q, k, v, upstream = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)
    # Large upstream gradients: 1 / tiny, written to avoid a division by zero, is still finite with small ones.
    return [tensor.to(dtype) for tensor in (q, k, v, 100 * upstream)]


def with_gradients(function, *tensors, upstream):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    out = function(*leaves)
    return out.detach(), *torch.autograd.grad(out, leaves, upstream.to(out.dtype), materialize_grads=True)


def assert_same(actual, wanted, tolerance=1e-12):
    for name, one, other in zip(("out", "dq", "dk", "dv"), actual, wanted, strict=True):
        size = max(1.0, other.abs().max().item())
        error = (one.double() - other).abs().max().item()
        assert error <= tolerance * size, f"{name} is off by {error:.2e}"


def build(spec, **options):
    return spec.build(heads=H, head_dim=D, kv_heads=G, value_dim=E, **options)

"""Mechanisms that stream, tokens for them, and the loop that a decoder runs."""

import torch

from saccade import Causal, Full, Global, Local, Random
from saccade.attention import MECHANISMS

B, H, G, D, E = 2, 6, 3, 5, 7
SPECS = {
    "full": MECHANISMS["full"](),
    "efficient": MECHANISMS["efficient"](),
    "linear": MECHANISMS["linear"](),
    "linear_relu": MECHANISMS["linear"](feature="relu"),
    "linear_dpfp": MECHANISMS["linear"](feature="dpfp", nu=3),
    "linear_taylor": MECHANISMS["linear"](feature="taylor"),
    "linear_hedgehog": MECHANISMS["linear"](feature="hedgehog"),
    "rfa": MECHANISMS["rfa"](features=64),
    "rfa_arccos": MECHANISMS["rfa"](features=11, kernel="arccos"),
    "performer": MECHANISMS["performer"](features=12),
    "sinkhorn": MECHANISMS["sinkhorn"](block=8, gumbel=0),
    "sinkhorn_net": MECHANISMS["sinkhorn"](block=5, iterations=3, gumbel=0, scores="linear", max_length=2000),
    "lsh": MECHANISMS["lsh"](bucket=3, rounds=2, causal_buckets=4),
    "lsh_unique": MECHANISMS["lsh"](bucket=2, rounds=3, causal_buckets=2, unique=True),
    "self": MECHANISMS["local"](left=0),
    "local": MECHANISMS["local"](left=5, right=2),
    "local_long": MECHANISMS["local"](left=40),
    "sinks": MECHANISMS["sparse"](Local(4, 0) | Global(3, rows=False)),
    "windows": MECHANISMS["sparse"](Local(4) | Local(9, 1) | Global(2, last=3)),
    "longformer": MECHANISMS["longformer"](window=6, first=2),
    "longformer_positions": MECHANISMS["longformer"](window=6, first=2, positions=(5, 11)),
    "blocks": MECHANISMS["sparse"](Local(1, block=8)),
    "strided": MECHANISMS["strided"](stride=5),
    "sparse_transformer": MECHANISMS["sparse_transformer"](stride=7),
    "big_bird": MECHANISMS["big_bird"](block=8, random_blocks=2, seed=9),
    "big_bird_heads": MECHANISMS["big_bird"](block=4, random_blocks=1, per_head=True),
    "nothing_at_first": MECHANISMS["sparse"](Random(2, block=8, causal=True)),
    "full_cosine": MECHANISMS["full"](score="cosine"),
    "full_additive": MECHANISMS["full"](score="additive"),
    "full_relu": MECHANISMS["full"](weights="relu"),
    "full_top_k": MECHANISMS["full"](weights="top_k", top_k=3),
    "routing": MECHANISMS["routing"](clusters=5),
    "routing_window": MECHANISMS["routing"](clusters=3, window=4, scores="raw"),
    "early_only": MECHANISMS["sparse"](Global(3, rows=False)),
    "compressed": MECHANISMS["compressed"](),
    "compressed_mixed": MECHANISMS["compressed"](stride=2, kernel=5, groups=1, null=False),
    "synthesizer": MECHANISMS["synthesizer"](max_length=2000),
    "synthesizer_random": MECHANISMS["synthesizer"]("random", max_length=1000),
    "synthesizer_mixed": MECHANISMS["synthesizer"]("factorised_random+dot", max_length=2000),
}
FEATURES = {"linear": D, "linear_relu": D, "linear_dpfp": 6 * D, "linear_taylor": 1 + D + 15, "linear_hedgehog": 2 * D}
FEATURES |= {name: SPECS[name].features for name in ("rfa", "rfa_arccos")}
"""How many features of a key."""

SIZES = (
    dict.fromkeys(("efficient", "performer"), "O(1)")
    | dict.fromkeys(FEATURES, "O(1)")
    | dict.fromkeys(("self", "local", "local_long", "sinks", "windows", "longformer"), "O(window)")
)
"""Those that do not keep every token."""

LIMITS = {"self": 1, "local": 6, "local_long": 41, "sinks": 3 + 4 + 1, "windows": 2 + 9 + 1, "longformer": 2 + 3 + 1}
"""Tokens that a window keeps: its sinks, those to the left, and the token itself."""

PER_TOKEN = {
    "lsh": H * (D + 2) + G * E,
    "lsh_unique": H * (D + 3) + G * E,
    "synthesizer": G * E + 1,
    "synthesizer_random": G * E + 1,
}
"""Numbers that are kept of a token, where these are not its key, its value and whether it is real."""

GROUPS = {"compressed": (3, 3), "compressed_mixed": (2, 5)}
"""Stride and kernel of those that keep a token for each group."""


def numbers(name, n):
    """How many numbers the state of one example holds behind so many tokens."""
    if name in FEATURES:
        return G * FEATURES[name] * (E + 1)
    if name == "efficient":
        return G * D * (E + 2)
    if name == "performer":
        return G * (SPECS[name].features * (E + 1) + 1)
    if name in PER_TOKEN:
        return n * PER_TOKEN[name]
    labels = H if name.startswith("routing") else 0  # the cluster of each key
    kept = tokens_kept(name, n) * (G * (D + E) + 1 + labels)
    if not name.startswith("sinkhorn"):
        return kept
    spec, pooled = SPECS[name], 2 * D if name == "sinkhorn_net" else D
    return kept + H * (pooled + spec.iterations * -(-n // spec.block) + spec.block * (D + E + 1))


PATTERNS_KEPT = {
    Full(): (0, None),
    Causal(): (0, None),
    Local(5, 2): (0, 6),
    Local(3) | Global(2): (2, 4),
    (Local(3) | Global(2)) & Causal(): (2, 4),
    (Local(3) & Causal()) | Global(2, last=4): (2, 4),
    Local(3) | Local(1, 9) | Global(1) | Global(4, rows=False): (4, 4),
    Local(3) | Full(): (0, None),
}
"""Patterns, and the first and last tokens that their causal forms show; `None` is all."""


def tokens_kept(name, n):
    """How many of `n` tokens a state holds, or tokens that stand for a group."""
    if name in GROUPS:
        stride, kernel = GROUPS[name]
        finished = len(range(kernel - 1, n, stride))
        return finished + n - finished * stride
    return min(n, LIMITS.get(name, n))


def build(name):
    return SPECS[name].build(heads=H, head_dim=D, kv_heads=G, value_dim=E)


def tokens(n, dtype=torch.float64, batch=B, seed=3):
    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, H, n, D), (batch, G, n, D), (batch, G, n, E)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def key_masks(n):
    """Holes, left padding, and an example of which nothing is real."""
    holes = torch.arange(n) % 7 != torch.tensor([[3], [5]])
    left = torch.arange(n) >= torch.tensor([[n // 3], [0]])
    return {"none": None, "holes": holes, "left": left, "empty": torch.tensor([[False], [True]]).expand(2, n)}


def decode(layer, q, k, v, key_mask=None, state=None):
    """The loop of a decoder: all outputs, and the last state."""
    state = layer.initial_state(q.shape[0], q.dtype) if state is None else state
    outs = [v.new_zeros(*q.shape[:2], 0, v.shape[3])]
    for t in range(q.shape[2]):
        mask = None if key_mask is None else key_mask[:, t, None]
        out, state = layer.step(q[:, :, t, None], k[:, :, t, None], v[:, :, t, None], state, mask)
        outs.append(out)
    return torch.cat(outs, 2), state

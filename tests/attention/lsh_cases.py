"""Layers of LSH attention, masks and inputs, for its tests."""

import torch
from mechanism_cases import B, D, E, G, H

import oracles_lsh
from saccade.attention.mechanisms._lsh.hashing import rotations
from saccade.attention.mechanisms.lsh import LshAttention

SMALL = {"bucket": 4, "rounds": 3, "causal_buckets": 6, "seed": 5}


OPTIONS = {
    "default": {},
    "unique": {"unique": True},
    "same_bucket": {"same_bucket": True},
    "both_options": {"same_bucket": True, "unique": True},
    "one_round": {"rounds": 1},
    "odd_chunk": {"bucket": 7, "rounds": 2},
    "chunks_of_one": {"bucket": 1, "rounds": 2},
    "long_chunk": {"bucket": 80, "rounds": 2},
    "one_bucket": {"causal_buckets": 1},
    "two_digits": {"bucket": 1, "rounds": 2, "causal_buckets": 70},
}


LAYER = 3


def build(**options):
    return LshAttention(**{**SMALL, **options}).build(H, D, kv_heads=G, value_dim=E, layer=LAYER)


def inputs(n, batch=B, dtype=torch.float64):
    generator = torch.Generator().manual_seed(n)
    shapes = (batch, H, n, D), (batch, G, n, E), (batch, H, n, E)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def masks(n):
    """Right padding, left padding, holes, and an example in which nothing is real."""
    at = torch.arange(n)
    return {
        "none": None,
        "right": at < torch.tensor([[n], [max(1, n - 11)]]),
        "left": at >= torch.tensor([[n // 3], [0]]),
        "holes": at % 7 != torch.tensor([[3], [n % 7]]),
        "empty": torch.tensor([[False], [True]]).expand(2, n),
    }


def assert_same(actual, wanted, tolerance=1e-12):
    for name, one, other in zip(("out", "dq", "dv"), actual, wanted, strict=True):
        assert one.isfinite().all(), name
        error = (one.double() - other).abs().max().item() if one.numel() else 0.0
        assert error <= tolerance * max(1.0, other.abs().max().item()), f"{name} is off by {error:.2e}"


def meetings(spec, q, real, causal):
    """In how many rounds each query meets each key, by the oracle and with the rotations of the package."""
    b, h, n, d = q.shape
    met = torch.zeros(b, h, n, n, dtype=torch.float64)
    for i in range(b):
        tokens = real[i].nonzero()[:, 0].tolist()
        live = max(tokens, default=-1) + 1
        size = oracles_lsh.split(spec.causal_buckets) if causal else oracles_lsh.digits(max(live, 1), spec.bucket)
        drawn = [] if size == [1] else rotations(spec.seed, LAYER, h, spec.rounds, d, tuple(size))
        for head in range(h):
            rounds = []
            for turn in range(spec.rounds):
                bucket = oracles_lsh.buckets_of(q[i, head], tokens, [each[head, turn] for each in drawn])
                if causal:
                    rounds.append(oracles_lsh.met_causally(bucket, spec.bucket))
                else:
                    rounds.append(oracles_lsh.met_in_round(bucket, spec.bucket, spec.same_bucket))
            met[i, head] = oracles_lsh.meetings(rounds, n)
    return met

"""What mechanisms say they cost."""

import pytest
import torch
from mechanism_cases import PATTERNS, SPECS, D, E, G, H

from counting import counted_flops, kept_bytes
from saccade.attention import MECHANISMS, Cost, to_mechanism

COUNTED = [
    *MECHANISMS,
    "local(left=64)",
    "longformer(window=32, first=3)",
    "big_bird(block=32, per_head=True)",
    "lsh(bucket=32, rounds=2, same_bucket=True, causal_buckets=1)",
    "strided(stride=3)",
    "linformer(rank=7, sharing='none')",
    "linformer(rank=300, sharing='layerwise')",
    "compressed(stride=4, kernel=7, null=False)",
    "compressed(stride=1, groups=1)",
    "full(score='dot')",
    "full(score='cosine')",
    "full(score='additive')",
    "full(score='additive', weights='relu', hidden=5)",
    "full(weights='relu')",
    "synthesizer('random', max_length=1111)",
    "synthesizer('fixed+dot', max_length=1200)",
    "synthesizer('factorised_dense', block=50)",
    "synthesizer('dense+factorised_random+factorised_dense', max_length=1111, rank=3)",
    "full(score='cosine', weights='top_k')",
    "mixed([(full(weights='relu'), 3), (local(left=64), 3)])",
    "Full()",
    "Causal()",
]


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize(("n_q", "n_k"), [(1, 1), (63, 63), (130, 130), (17, 40), (40, 17)], ids=str)
def test_pairs_are_counted_exactly(name, causal, n_q, n_k):
    pattern = PATTERNS[name].causal() if causal else PATTERNS[name]
    dense = pattern.bind(n_q, n_k, heads=H).dense()
    per_head = dense.expand(*(1,) * (4 - dense.ndim), *dense.shape).expand(1, H, n_q, n_k)
    cost = SPECS[name].cost(n_q, n_k, heads=H, head_dim=D, value_dim=E, causal=causal)
    assert isinstance(cost, Cost)
    assert cost.pairs == per_head.sum()
    assert cost.flops == 2 * cost.pairs * (D + E)


@pytest.mark.parametrize("name", SPECS)
def test_bytes_are_at_least_what_goes_in_and_out(name):
    n_q, n_k = (29 if SPECS[name].claims.cross else 31), 31
    query_dim, key_dim = (D if part in SPECS[name].inputs else 0 for part in "qk")
    cost = SPECS[name].cost(n_q, n_k, heads=H, head_dim=D, value_dim=E)
    assert cost.bytes >= 4 * H * (n_q * query_dim + n_k * key_dim + n_k * E + n_q * E)
    grouped = SPECS[name].cost(n_q, n_k, heads=H, head_dim=D, value_dim=E, kv_heads=G)
    saved = cost.bytes - grouped.bytes - 4 * (H - G) * n_k * (key_dim + E)
    own = bool(list(SPECS[name].build(H, D, value_dim=E).parameters()))  # fewer where key heads are
    assert saved >= 0 if own else saved == 0
    assert grouped.flops >= cost.flops // (4 if own else 2)  # a convolution over key heads shrinks by their square
    same = SPECS[name].cost(n_q, n_k, heads=H, head_dim=D)
    assert same == SPECS[name].cost(n_q, n_k, heads=H, head_dim=D, value_dim=D, kv_heads=H)


def test_costs_grow_as_the_docstrings_say():
    def growth(name, field, **options):
        small, large = (
            getattr(to_mechanism(name).cost(n, n, heads=2, head_dim=16, **options), field) for n in (2048, 8192)
        )
        return large / small

    assert growth("full", "flops") == pytest.approx(16)
    assert growth("full", "flops", causal=True) == pytest.approx(16, rel=1e-2)
    assert growth("local", "flops") == pytest.approx(4, rel=0.1)
    assert growth("big_bird", "flops") == pytest.approx(4, rel=0.1)
    assert growth("linear", "flops") == pytest.approx(4, rel=0.1)
    assert growth("linear", "flops", causal=True) == pytest.approx(4, rel=0.1)
    assert all(growth(name, "bytes") == pytest.approx(4, rel=0.1) for name in ("full", "local", "linear"))


def test_the_cost_of_a_long_window_is_counted_without_an_array_of_all_pairs():
    n, left, right = 200_000, 128, 64
    cost = to_mechanism(f"local(left={left}, right={right})").cost(n, n, heads=2, head_dim=64)
    cut_off = left * (left + 1) // 2 + right * (right + 1) // 2
    assert cost.pairs == 2 * (n * (left + 1 + right) - cut_off)


def test_linear_flops_are_those_of_its_matrix_products():
    cost = MECHANISMS["linear"]().cost(100, 90, heads=3, head_dim=5, value_dim=7)
    products = 3 * (90 * 5 * 7 + 100 * 5 * 7)
    assert 2 * products <= cost.flops <= 2 * products * 1.2
    assert cost.pairs == 0


UNEVEN = {("routing", True): 2}
"""Causally, clusters are as large as the tokens make them: so many times as much as for even ones, at most."""


def inputs(n, heads, kv_heads, dim):
    shapes = (1, heads, n, dim), (1, kv_heads, n, dim), (1, kv_heads, n, dim)
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize(("n", "kv_heads"), [(200, 2), (200, 6), (1024, 2), (1111, 2)])
def test_operations_and_what_is_kept_are_those_that_torch_counts(name, causal, n, kv_heads):
    spec = to_mechanism(name)
    if causal and not spec.claims.causal:
        pytest.skip("not claimed")
    layer = spec.build(6, 8, kv_heads)
    q, k, v = inputs(n, 6, kv_heads, 8)
    cost = spec.cost(n, n, 6, 8, kv_heads=kv_heads, causal=causal)
    counted = counted_flops(lambda: layer(q, k, v, causal=causal))
    if (name, causal) in UNEVEN:
        assert 0.8 * cost.computed < counted < UNEVEN[name, causal] * cost.computed
    else:
        assert counted == cost.computed
    # What is kept for each query is kept for whole tiles of them; the parts of a mixture keep views of its inputs, and
    # outputs that are not its own.
    spare = 4 * 6 * (-n % 64) + (4 * n * 16 * (6 + kv_heads) if spec.name == "mixed" else 0)
    kept = kept_bytes(lambda: layer(q, k, v, causal=causal), [*layer.parameters(), *layer.buffers()])
    assert 0 <= kept - cost.kept <= spare


@pytest.mark.parametrize("name", ["full", "Full()", "linear"])
def test_nothing_is_wasted_where_nothing_is_hidden(name):
    cost = to_mechanism(name).cost(1111, 1111, 6, 8)
    assert cost.computed == cost.flops


def test_causal_full_attention_wastes_nothing_however_it_is_written():
    costs = [to_mechanism(name).cost(200, 200, 6, 8, causal=True) for name in ("full", "Full()", "Causal()")]
    assert costs[0] == costs[1] == costs[2]
    assert costs[0].wasted == 0


def test_a_mask_and_whole_tiles_are_waste():
    short, long = (to_mechanism("local(left=64)").cost(n, n, 6, 8) for n in (200, 1024))
    assert short.computed == 2 * 6 * 200**2 * 16
    assert short.kept - 4 * 6 * 200 * 25 == 4 * 200**2
    assert long.flops < long.computed < 2 * 6 * 1024**2 * 16 / 4

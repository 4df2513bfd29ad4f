"""What mechanisms say they cost."""

import pytest
from mechanism_cases import PATTERNS, SPECS, D, E, G, H

from saccade.attention import MECHANISMS, Cost, to_mechanism


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
    n_q, n_k = 29, 31
    cost = SPECS[name].cost(n_q, n_k, heads=H, head_dim=D, value_dim=E)
    assert cost.bytes >= 4 * H * (n_q * D + n_k * D + n_k * E + n_q * E)
    grouped = SPECS[name].cost(n_q, n_k, heads=H, head_dim=D, value_dim=E, kv_heads=G)
    assert cost.bytes - grouped.bytes == 4 * (H - G) * n_k * (D + E)
    assert grouped.flops >= cost.flops // 2
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

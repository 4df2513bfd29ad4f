import pytest

from saccade.attention import MECHANISMS
from saccade.attention.patterns import Local
from saccade.bench import cost


def test_full_attention_costs_two_products_a_pair():
    found = cost("full", 11, heads=3, head_dim=5, n_k=13, value_dim=7)
    assert found.pairs == 3 * 11 * 13
    assert found.flops == 2 * found.pairs * (5 + 7)


def test_keys_are_as_many_as_queries_if_not_given():
    assert cost("full", 11) == cost("full", 11, n_k=11)
    assert cost("full", 11) != cost("full", 11, n_k=13)


def test_name_expression_spec_and_pattern_mean_the_same():
    expected = MECHANISMS["local"](left=5).cost(64, 64, 8, 64)
    assert cost("local(left=5)", 64) == cost(MECHANISMS["local"](left=5), 64) == cost(Local(5), 64) == expected


def test_options_reach_the_mechanism():
    assert cost("full", 17, causal=True).pairs == 8 * 17 * 18 // 2
    assert cost("full", 17, heads=6, kv_heads=2).bytes < cost("full", 17, heads=6).bytes


@pytest.mark.parametrize(
    ("mechanism", "options", "message"),
    [
        ("bigbird", {}, "did you mean 'big_bird'"),
        ("full", {"n": 0}, "n must be at least 1, got 0"),
        ("full", {"n_k": 0}, "n_k must be at least 1, got 0"),
    ],
)
def test_refuses(mechanism, options, message):
    with pytest.raises(ValueError, match=message):
        cost(mechanism, **{"n": 8, **options})

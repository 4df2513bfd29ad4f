import pytest
import torch

from saccade.attention import MECHANISMS, to_mechanism
from saccade.attention.patterns import Global, Local, longformer
from saccade.bench import cost
from saccade.bench.show import LENGTHS, gallery, look, telling_length


@pytest.mark.parametrize(
    ("mechanism", "pattern"),
    [
        ("local(left=3, right=1)", Local(3, 1)),
        ("Local(2) | Global(1)", Local(2) | Global(1)),
        ("longformer(window=4, first=2)", longformer(4, 2)),
    ],
)
@pytest.mark.parametrize("causal", [False, True])
def test_the_picture_of_a_pattern_is_its_mask(mechanism, pattern, causal):
    view = look(mechanism, 23, causal=causal)
    mask = (pattern.causal() if causal else pattern).dense(23, 23)
    assert torch.equal(view.weights[0] != 0, mask)
    assert view.kept == mask.double().mean().item()
    assert view.seed is None


def test_weights_of_linear_attention_are_its_formula():
    view = look("linear", 19, seed=5)
    draws = torch.Generator().manual_seed(5)
    q, k = (1 + torch.nn.functional.elu(torch.randn(1, 1, 19, 64, generator=draws))[0, 0] for _ in range(2))
    expected = q @ k.T
    torch.testing.assert_close(view.weights[0], expected / expected.sum(1, keepdim=True))
    assert view.seed == 5
    assert "here random (seed 5)" in view.note


def test_heads_are_drawn_apart_where_they_differ():
    weights = look("big_bird(block=2, per_head=True)", 64, heads=2).weights
    assert weights.shape == (2, 64, 64)
    assert not torch.equal(weights[0], weights[1])


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_telling_length_is_the_shortest_that_leaves_most_out(name):
    shares = {n: cost(name, n, heads=1).flops / cost("full", n, heads=1).flops for n in LENGTHS}
    length = telling_length(to_mechanism(name))
    assert length == 64 if name == "full" else shares[length] <= 0.4
    assert name in ("strided", "routing") or all(shares[n] > 0.4 for n in LENGTHS if n < length)


def test_the_telling_length_is_drawn_if_none_is_given():
    assert look("local(left=16)").length == telling_length(to_mechanism("local(left=16)")) == 128


def test_a_stride_shows_more_than_its_diagonal():
    assert telling_length(to_mechanism("strided(stride=64)")) == 512
    assert telling_length(to_mechanism("local(left=1)")) == LENGTHS[0]


def test_title_and_facts():
    view = look("local(left=1)", 10, causal=True)
    assert view.title == "local(left=1), causal"
    assert view.facts == "n = 10 · 19% of n² pairs · 35% of full's operations"
    assert look("Local(1) | Global(1)", 10).title == "Local(1) | Global(1)"


def test_the_gallery_has_every_mechanism_once():
    views = gallery(16)
    assert [view.mechanism.name for view in views] == list(MECHANISMS)
    assert len({view.title for view in views}) == len(MECHANISMS)
    causal = [name for name in MECHANISMS if MECHANISMS[name]().claims.causal]
    assert "linformer" not in causal
    assert [view.mechanism.name for view in gallery(16, causal=True)] == causal


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length must be from 1 to 8,192, got 0"),
        ({"length": 10_000}, "length must be from 1 to 8,192, got 10000"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"mechanism": "locl"}, "did you mean 'local'"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        look(**{"mechanism": "full", "length": 8, **options})

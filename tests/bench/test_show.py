import pytest
import torch

from saccade.attention import MECHANISMS, to_mechanism
from saccade.attention.patterns import Global, Local, longformer
from saccade.bench import cost
from saccade.bench.show import HEAD_DIM, LENGTHS, gallery, legend, look, made_up, telling_heads, telling_length


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
    assert view.kept == [mask.double().mean().item()]
    assert view.seed is None
    assert torch.equal(view.strength[0], mask.float())
    assert view.note == "Filled: the query sees the key."


def test_weights_of_linear_attention_are_its_formula():
    view = look("linear", 19, seed=5)
    q, k = 1 + torch.nn.functional.elu(made_up(19, 1, seed=5)[:, 0, 0])
    expected = q @ k.T
    torch.testing.assert_close(view.weights[0], expected / expected.sum(1, keepdim=True))
    torch.testing.assert_close(view.strength[0], view.weights[0] * 19 / 10)
    assert view.seed == 5
    assert view.note == (
        "Made-up content (8 topics that come and go, seed 5): the fuller, the more of its query's weight a key has, "
        "full at 10 times an equal share."
    )


def test_made_up_content_is_alike_within_a_topic():
    q, k = made_up(400, 2, seed=1)[:, 0]
    assert torch.equal(made_up(400, 2, seed=1)[0, 0], q)
    assert not torch.equal(made_up(400, 2, seed=2)[0, 0], q)
    assert q.var().item() == pytest.approx(1, abs=0.1)
    scores = (q @ k.mT / HEAD_DIM**0.5).mean(0)
    # Neighbours mostly share a topic, and then 0.36 of their variance: a score of 0.36 * 8. Few pairs of all do.
    assert scores.diagonal(1).mean().item() == pytest.approx(0.36 * 8, rel=0.15)
    assert scores.mean() < 0.36 * 8 / 2
    topics = {tuple(row) for row in (scores[:, ::20] > 1.5).tolist()}
    assert len(topics) < 400


@pytest.mark.parametrize("name", ["linformer", "sinkhorn(scores='linear')", "compressed"])
def test_the_same_picture_each_time(name):
    before = torch.random.get_rng_state()
    assert torch.equal(look(name, 32).weights, look(name, 32).weights)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_only_shares_below_zero_are_orange():
    signed = look("linformer", 32)
    assert signed.note.endswith("equal share. Orange is below zero.")
    torch.testing.assert_close(signed.strength.abs().sum(-1), torch.full((1, 32), 3.2))
    views = [look("local", 8), look("linear", 8), look("lsh", 8)]
    assert legend(views) == [views[0].note, views[1].note]
    assert legend([*views, signed]) == [views[0].note, signed.note]


def test_heads_are_drawn_apart_where_they_differ():
    weights = look("big_bird(block=2, per_head=True)", 64, heads=2).weights
    assert weights.shape == (2, 64, 64)
    assert not torch.equal(weights[0], weights[1])


@pytest.mark.parametrize(
    ("mechanism", "names"),
    [
        ("mixed", ["head 0, local", "head 1, linear"]),
        (
            "mixed(parts=[('linear', 5), ('local', 1), ('full', 1)])",
            ["head 0, linear", "head 1, local", "head 2, full"],
        ),
        ("PerHead([Local(2), Strided(4)])", ["head 0", "head 1"]),
        ("big_bird", [""]),
    ],
)
def test_every_part_has_a_head(mechanism, names):
    view = look(mechanism)
    assert view.names == names
    assert len(view.kept) == len(view.weights) == telling_heads(view.mechanism) == len(names)
    own, full = (cost(each, view.length, heads=len(names)).flops for each in (view.mechanism, "full"))
    assert view.operations == pytest.approx(own / full)


def test_heads_of_a_mixture_are_named_by_their_parts_in_proportion():
    parts = ["local", "local", "linear", "linear"]
    view = look("mixed", 64, heads=4)
    assert view.names == [f"head {head}, {part}" for head, part in enumerate(parts)]
    assert look("mixed(parts=[('Local(1)', 4), ('linear', 4)])", 64).kept == [190 / 4096, 1]
    assert look("mixed", 64, heads=1).names == [""]


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_telling_length_is_the_shortest_that_leaves_most_out(name):
    heads = telling_heads(to_mechanism(name))
    shares = {n: cost(name, n, heads=heads).flops / cost("full", n, heads=heads).flops for n in LENGTHS}
    length = telling_length(to_mechanism(name), heads)
    assert shares[length] <= 0.4 or (min(shares.values()) > 0.4 and length == 64)
    assert name in ("strided", "routing") or all(shares[n] > 0.4 for n in LENGTHS if n < length)


def test_the_telling_length_is_drawn_if_none_is_given():
    assert look("local(left=16)").length == telling_length(to_mechanism("local(left=16)"), 1) == 128


def test_a_stride_shows_more_than_its_diagonal():
    assert telling_length(to_mechanism("strided(stride=64)"), 1) == 512
    assert telling_length(to_mechanism("local(left=1)"), 1) == LENGTHS[0]


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

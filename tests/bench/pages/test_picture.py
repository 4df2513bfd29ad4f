import numpy
import pytest
import torch
from matplotlib.image import imread

from saccade.attention import MECHANISMS, to_mechanism
from saccade.attention.weights import implied_weights
from saccade.bench.pages.passage import Passage, read
from saccade.bench.pages.picture import (
    CELLS,
    GAP,
    LEVELS,
    overlap,
    shade,
    small_figure,
    weights_figure,
    weights_on,
)
from saccade.bench.plots import ink_colors, save
from saccade.bench.shades import FULL_INK
from saccade.models import ClassifierSettings, SequenceClassifier

N, H, D = 20, 4, 3


@pytest.fixture
def passage():
    inputs = {name: torch.randn(1, H, N, D) for name in "qkv"}
    return Passage(inputs, implied_weights(to_mechanism("full").build(H, D), inputs)[0])


def test_what_is_read_are_the_inputs_of_the_last_layer():
    model = SequenceClassifier(257, 3, ClassifierSettings(width=12, heads=H, layers=2, hidden=7)).train()
    tokens = torch.randint(257, (N,), dtype=torch.int16)
    found = read(model, tokens)
    x = model.position.on_input(model.embedding(tokens[None].long()))
    x = model.encoder.layers[0](x)
    last = model.encoder.layers[1]
    for name, given in found.inputs.items():
        wanted = last.attention.projections[name](last.attention_norm(x)).unflatten(2, (H, D)).transpose(1, 2)
        torch.testing.assert_close(given, wanted)
    q, k = found.inputs["q"], found.inputs["k"]
    torch.testing.assert_close(found.weights, (q @ k.mT / D**0.5).softmax(-1)[0])
    read(model, tokens)


def test_of_each_half_the_most_concentrated_head_is_shown():
    weights = torch.full((6, N, N), 1 / N)
    weights[1] = torch.eye(N)
    weights[5] = (torch.eye(N) + torch.eye(N).roll(1, 0)) / 2
    assert Passage({"q": torch.zeros(1, 6, N, D)}, weights).heads == (1, 5)


def test_weights_are_those_of_the_mechanism_and_the_same_each_time(passage):
    q, k = (passage.inputs[name][0] for name in "qk")
    window = (torch.arange(N)[:, None] - torch.arange(N)).abs() <= 2
    wanted = (q @ k.mT / D**0.5).masked_fill(~window, -torch.inf).softmax(-1)
    torch.testing.assert_close(weights_on(to_mechanism("local(left=2)"), passage), wanted)
    before = torch.random.get_rng_state()
    random = to_mechanism("big_bird(block=2, random_blocks=1)")
    assert torch.equal(weights_on(random, passage), weights_on(random, passage))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_signs_stay_and_shares_are_of_all_sizes(passage):
    class Negated(MECHANISMS["full"]):
        name = "negated"

        def build(self, *sizes, **options):
            built = super().build(*sizes, **options)
            built.register_forward_hook(lambda layer, args, out: -4 * out)
            return built

    torch.testing.assert_close(weights_on(Negated(), passage), -passage.weights)


def test_overlap_is_what_both_agree_on():
    one, other = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.2, 0.2, 0.6]])
    assert overlap(one, other) == pytest.approx(0.4)
    assert overlap(one, one) == 1
    assert overlap(one, torch.tensor([[-1.0, 1.0, 1.0]])) == pytest.approx(0.5)


def test_shades_have_one_scale_and_show_signs():
    n = CELLS
    weights = torch.zeros(n, n)
    weights[0, :4] = torch.tensor([FULL_INK, 2 * FULL_INK, FULL_INK / 4, -FULL_INK / 4]) / n
    found = shade(weights)
    assert found[0, :4].tolist() == [1, 1, 0.5, -0.5]
    assert found[0, 4:].isnan().all()
    assert ((shade(torch.rand(n, n) / n) * LEVELS) % 1 == 0).all()
    assert shade(torch.rand(2 * n, 2 * n)).shape == (n, n)


def test_the_figure_has_full_attention_on_the_left(passage):
    figure = weights_figure(to_mechanism("local(left=2)"), passage)
    assert figure.get_suptitle() == "local(left=2)"
    drawn = [axis.images[0].get_array() for axis in figure.axes]
    assert len(drawn) == 4
    first, second = passage.heads
    own = weights_on(to_mechanism("local(left=2)"), passage)
    wanted = passage.weights[first], own[first], passage.weights[second], own[second]
    for image, weights in zip(drawn, wanted, strict=True):
        assert numpy.array_equal(numpy.ma.filled(image, numpy.nan), shade(weights).numpy(), equal_nan=True)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles[0] == f"full, head {first}"
    assert titles[1].startswith("24% of the pairs, overlap with full ")
    assert len(weights_figure(to_mechanism("full"), passage).axes) == 2


def test_the_small_picture_is_two_heads_dot_by_dot(passage, tmp_path):
    spec = to_mechanism("local(left=2)")
    save(small_figure(spec, passage), tmp_path / "a.png")
    drawn = imread(tmp_path / "a.png")[..., :3]
    side = 2 * N
    assert drawn.shape[:2] == (side + 2, 2 * (side + 2) + GAP)
    for start, head in zip((1, side + 3 + GAP), passage.heads, strict=True):
        wanted = ink_colors()((shade(weights_on(spec, passage)[head]).numpy() + 1) / 2)[..., :3]
        square = drawn[1 : side + 1, start : start + side]
        for offset in (0, 1):
            assert numpy.allclose(square[offset::2, offset::2], wanted, atol=0.01)
    assert (drawn[:, side + 2 : side + 2 + GAP] == 1).all()


def test_the_small_picture_of_full_attention_is_what_it_was_trained_with(passage):
    (drawn,) = (each.get_array() for each in small_figure(to_mechanism("full"), passage).images)
    wanted = shade(passage.weights[passage.heads[0]])
    assert numpy.array_equal(drawn[1 : 2 * N : 2, 1 : 2 * N : 2], wanted.numpy())

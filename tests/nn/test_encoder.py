import pytest
import torch
from torch import nn

from saccade.attention.patterns import Local, Random
from saccade.nn import Encoder

WIDTH, HEADS, HIDDEN, LAYERS = 21, 3, 31, 2


def peer(ours, norm, activation):
    """torch's own encoder with the same weights."""
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, HIDDEN, dropout=0.3, activation=activation, batch_first=True, norm_first=norm == "pre"
    )
    final = nn.LayerNorm(WIDTH) if norm == "pre" else None
    theirs = nn.TransformerEncoder(layer, LAYERS, final, enable_nested_tensor=False).double().eval()
    with torch.no_grad():
        for mine, other in zip(ours.layers, theirs.layers, strict=True):
            projections = [mine.attention.projections[name] for name in ("q", "k", "v")]
            other.self_attn.in_proj_weight.copy_(torch.cat([each.weight for each in projections]))
            other.self_attn.in_proj_bias.copy_(torch.cat([each.bias for each in projections]))
            other.self_attn.out_proj.load_state_dict(mine.attention.output.state_dict())
            other.linear1.load_state_dict(mine.feed_forward[0].state_dict())
            other.linear2.load_state_dict(mine.feed_forward[2].state_dict())
            other.norm1.load_state_dict(mine.attention_norm.state_dict())
            other.norm2.load_state_dict(mine.feed_forward_norm.state_dict())
        if final is not None:
            theirs.norm.load_state_dict(ours.norm.state_dict())
    return theirs


def encoder(**options):
    ours = Encoder(**{"width": WIDTH, "heads": HEADS, "layers": LAYERS, "hidden": HIDDEN, **options})
    for weight in ours.parameters():
        nn.init.normal_(weight)
    return ours.double().eval()


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("causal", [False, True])
def test_the_encoder_equals_torch(norm, activation, causal):
    ours = encoder(norm=norm, activation=activation, dropout=0.3)
    x = torch.randn(2, 11, WIDTH, dtype=torch.float64)
    key_mask = torch.arange(11) < torch.tensor([11, 5])[:, None]
    future = torch.ones(11, 11, dtype=torch.bool).triu(1) if causal else None
    theirs = peer(ours, norm, activation)
    expected = theirs(x, mask=future, src_key_padding_mask=~key_mask)
    torch.testing.assert_close(ours(x, key_mask, causal)[key_mask], expected[key_mask], rtol=0, atol=1e-9)
    torch.testing.assert_close(ours(x, causal=causal), theirs(x, mask=future), rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_dropout_is_on_what_each_sublayer_adds(norm):
    ours = encoder(norm=norm, layers=1, dropout=0.5).train()
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    seen = []
    for module in ours.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda module, inputs, out: seen.append((inputs[0], out)))
    layer = ours.layers[0]
    out = ours(x)
    (attended, attended_out), (fed, fed_out) = seen
    source = layer.attention_norm(x) if norm == "pre" else x
    assert torch.equal(attended, layer.attention(source))
    middle = x + attended_out
    middle = middle if norm == "pre" else layer.attention_norm(middle)
    assert torch.equal(fed, layer.feed_forward(layer.feed_forward_norm(middle) if norm == "pre" else middle))
    end = middle + fed_out
    assert torch.equal(out, ours.norm(end) if norm == "pre" else layer.feed_forward_norm(end))
    assert 0.3 < (fed_out == 0).double().mean() < 0.7


def test_what_stands_behind_the_mask_reaches_nothing():
    ours = encoder(mechanism=["full", "linear"])
    x = torch.randn(2, 11, WIDTH, dtype=torch.float64)
    key_mask = torch.arange(11) < torch.tensor([11, 5])[:, None]
    dirty = x.masked_fill(~key_mask[..., None], float("nan")).requires_grad_()
    out = ours(dirty, key_mask)
    torch.testing.assert_close(out[1, :5], ours(x[1:, :5])[0], rtol=0, atol=1e-10)
    out[key_mask].sum().backward()
    assert all(weight.grad.isfinite().all() for weight in ours.parameters())
    assert (dirty.grad[~key_mask] == 0).all()


def test_each_layer_may_have_a_mechanism_of_its_own():
    ours = encoder(mechanism=["full", Local(2)])
    assert [str(layer.attention.mechanism) for layer in ours.layers] == ["full", "Local(2)"]
    assert [str(layer.attention.mechanism) for layer in encoder(mechanism="linear").layers] == ["linear"] * 2
    with pytest.raises(ValueError, match="mechanism must be one, or one for each of the 2 layers, got \\['full'\\]"):
        encoder(mechanism=["full"])


def test_layers_draw_differently():
    ours = encoder(mechanism=Random(1, block=2))
    drawn = [layer.attention.layer.pattern for layer in ours.layers]
    assert drawn[0] != drawn[1]


def test_hidden_is_four_times_the_width_unless_said():
    assert Encoder(WIDTH, HEADS, 1).layers[0].feed_forward[0].out_features == 4 * WIDTH


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"norm": "per"}, r"norm must be one of post, pre, got 'per' \(did you mean 'pre'\?\)"),
        ({"activation": "relo"}, r"activation must be one of gelu, relu, got 'relo' \(did you mean 'relu'\?\)"),
        ({"dropout": 1.0}, r"dropout must be at least 0 and below 1, got 1\.0"),
        ({"heads": 2}, "width must be a positive multiple of the 2 heads, got 21"),
    ],
)
def test_what_cannot_be_is_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        encoder(**options)


def test_inputs_of_another_shape_are_refused(unchecked):
    with pytest.raises(ValueError, match=r"x must be of shape \[batch, length, 21\] .*got \(2, 5, 20\)"):
        encoder()(torch.randn(2, 5, WIDTH - 1))

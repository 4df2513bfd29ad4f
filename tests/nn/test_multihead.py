from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from saccade.attention import AttentionLayer, Mechanism, to_mechanism
from saccade.attention.patterns import Causal, Local
from saccade.claims import Claims
from saccade.nn import Encoder, MultiHeadAttention

WIDTH, HEADS = 21, 3


def peer(ours):
    """torch's own module with the same weights."""
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, dtype=torch.float64).eval()
    projections = [ours.projections[name] for name in ("q", "k", "v")]
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([each.weight for each in projections]))
        theirs.in_proj_bias.copy_(torch.cat([each.bias for each in projections]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    return theirs


def shaken(module):
    """Biases start at zero, where a forgotten one would not show."""
    for weight in module.parameters():
        nn.init.normal_(weight)
    return module.double()


def mask(*lengths, n):
    return torch.arange(n) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_full_attention_equals_torch(causal, padded):
    ours = shaken(MultiHeadAttention(WIDTH, HEADS))
    x = torch.randn(2, 11, WIDTH, dtype=torch.float64)
    key_mask = mask(11, 5, n=11) if padded else None
    out = ours(x, key_mask=key_mask, causal=causal)
    # torch's masks are inverted: True hides.
    hidden = None if key_mask is None else ~key_mask
    future = torch.ones(11, 11, dtype=torch.bool).triu(1) if causal else None
    expected, _ = peer(ours)(x, x, x, key_padding_mask=hidden, attn_mask=future, need_weights=False)
    real = torch.ones(2, 11, dtype=torch.bool) if key_mask is None else key_mask
    torch.testing.assert_close(out[real], expected[real], rtol=0, atol=1e-10)


def test_cross_attention_equals_torch():
    ours = shaken(MultiHeadAttention(WIDTH, HEADS))
    x, context = torch.randn(2, 5, WIDTH, dtype=torch.float64), torch.randn(2, 13, WIDTH, dtype=torch.float64)
    key_mask = mask(13, 7, n=13)
    expected, _ = peer(ours)(x, context, context, key_padding_mask=~key_mask, need_weights=False)
    torch.testing.assert_close(ours(x, context, key_mask), expected, rtol=0, atol=1e-10)


def test_a_decoding_step_is_the_end_of_the_whole():
    ours = shaken(MultiHeadAttention(WIDTH, HEADS))
    x = torch.randn(2, 11, WIDTH, dtype=torch.float64)
    step = ours(x[:, 7:], context=x, causal=True, q_start=7)
    torch.testing.assert_close(step, ours(x, causal=True)[:, 7:], rtol=0, atol=1e-10)


@pytest.mark.parametrize("mechanism", ["full", "local(left=2)", "linear"])
def test_grouped_heads_equal_repeated_heads(mechanism):
    grouped = shaken(MultiHeadAttention(28, 4, mechanism, kv_heads=2, value_dim=5))
    repeated = MultiHeadAttention(28, 4, mechanism, value_dim=5).double()
    state = grouped.state_dict()
    for name, dim in (("k", 7), ("v", 5)):
        for part in ("weight", "bias"):
            key = f"projections.{name}.{part}"
            heads = state[key].unflatten(0, (2, dim))
            state[key] = heads.repeat_interleave(2, dim=0).flatten(0, 1)
    repeated.load_state_dict(state)
    x = torch.randn(3, 11, 28, dtype=torch.float64)
    torch.testing.assert_close(grouped(x), repeated(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("mechanism", ["local(left=2, right=3)", to_mechanism(Local(2, 3)), Local(2, 3)])
def test_a_mechanism_is_meant_by_name_spec_or_pattern(mechanism):
    one, other = MultiHeadAttention(WIDTH, HEADS, mechanism), MultiHeadAttention(WIDTH, HEADS, Local(2, 3))
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, 11, WIDTH)
    assert torch.equal(one(x), other(x))
    full = MultiHeadAttention(WIDTH, HEADS)
    full.load_state_dict(one.state_dict())
    assert not torch.allclose(one(x), full(x))


def test_what_stands_behind_the_mask_reaches_nothing():
    ours = shaken(MultiHeadAttention(WIDTH, HEADS))
    x = torch.randn(2, 11, WIDTH, dtype=torch.float64)
    key_mask = mask(11, 5, n=11)
    clean = ours(x.masked_fill(~key_mask[..., None], 0), key_mask=key_mask)
    dirty = x.masked_fill(~key_mask[..., None], float("nan")).requires_grad_()
    out = ours(dirty, key_mask=key_mask)
    assert torch.equal(out[key_mask], clean[key_mask])
    out.sum().backward()
    assert all(weight.grad.isfinite().all() for weight in ours.parameters())
    assert (dirty.grad[~key_mask] == 0).all()


def test_only_the_inputs_that_the_mechanism_names_are_projected():
    ours = MultiHeadAttention(WIDTH, HEADS, bias=False)
    assert set(ours.projections) == {"q", "k", "v"}
    assert sum(weight.numel() for weight in ours.parameters()) == 4 * WIDTH * WIDTH


class SpyLayer(AttentionLayer):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, q, k, v, key_mask=None, causal=False, q_start=0, record=None):
        return q


@dataclass(frozen=True, repr=False)
class Spy(Mechanism):
    """Claims nothing, and remembers how it was built."""

    name = "spy"
    built: ClassVar[list] = []

    @property
    def claims(self):
        return Claims()

    def build(self, heads, head_dim, kv_heads=None, value_dim=None, layer=0):
        self.built.append((heads, head_dim, kv_heads, value_dim, layer))
        return SpyLayer(self.built)

    def cost(self, *sizes):
        raise AssertionError


class Distant(Spy):
    name = "distant"
    inputs = ("q", "distance")


def test_the_layer_is_built_with_the_sizes_that_were_asked_for():
    MultiHeadAttention(28, 4, Spy(), kv_heads=2, value_dim=5, layer=3)
    assert Spy.built.pop() == (4, 7, 2, 5, 3)


def test_what_the_mechanism_does_not_claim_is_refused_with_the_reason():
    ours = MultiHeadAttention(WIDTH, HEADS, Spy())
    x = torch.randn(2, 5, WIDTH)
    ours(x)
    with pytest.raises(
        ValueError, match=r"context must be None, as spy does not claim cross attention: .*one sequence"
    ):
        ours(x, context=x)
    with pytest.raises(ValueError, match=r"causal must be False, as spy does not claim causality: .*later tokens"):
        ours(x, causal=True)


def test_an_input_that_nothing_here_makes_is_refused():
    with pytest.raises(ValueError, match="input of a mechanism must be one of gate, k, q, v, got 'distance'"):
        MultiHeadAttention(WIDTH, HEADS, Distant())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 20}, "width must be a positive multiple of the 3 heads, got 20"),
        ({"width": 0}, "width must be a positive multiple of the 3 heads, got 0"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"kv_heads": 2}, "kv_heads must be a divisor of the 3 heads, got 2"),
        ({"kv_heads": 0}, "kv_heads must be a divisor of the 3 heads, got 0"),
        ({"value_dim": 0}, "value_dim must be at least 1, got 0"),
        ({"mechanism": "ful"}, "mechanism must be one of .*, got 'ful' .*did you mean 'full'"),
        ({"mechanism": 3}, "mechanism must be a name, an expression, a pattern or a spec, got 3"),
    ],
)
def test_sizes_and_names_that_cannot_be_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(**{"width": WIDTH, "heads": HEADS, **options})


def test_inputs_of_another_shape_are_refused(unchecked):
    ours = MultiHeadAttention(WIDTH, HEADS)
    x = torch.randn(2, 5, WIDTH)
    message = r"must be of shape \[batch, length, 21\] \(the model width\), got \(2, 5, 20\)"
    with pytest.raises(ValueError, match="x " + message):
        ours(x[..., 1:])
    with pytest.raises(ValueError, match="context " + message):
        ours(x, x[..., 1:])
    with pytest.raises(ValueError, match=r"x must be of shape .*, got \(5, 21\)"):
        ours(x[0])


def test_causal_pattern_and_causal_flag_agree():
    one, other = MultiHeadAttention(WIDTH, HEADS, Causal()), MultiHeadAttention(WIDTH, HEADS)
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, 11, WIDTH)
    torch.testing.assert_close(one(x), other(x, causal=True))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 36, dtype=torch.bool), r"key_mask must be of shape \[b k\] = \(2, 37\)"),
        (torch.ones(2, 37), "key_mask must be a boolean tensor"),
    ],
    ids=["shape", "dtype"],
)
@pytest.mark.parametrize("module", ["attention", "encoder"])
def test_a_key_mask_that_does_not_fit_is_refused(unchecked, module, mask, message):
    built = MultiHeadAttention(12, 2) if module == "attention" else Encoder(12, 2, 1)
    with pytest.raises((TypeError, ValueError), match=message):
        built(torch.randn(2, 37, 12), key_mask=mask)

"""Which position methods work with which mechanisms, and how the others are refused."""

import pytest
import torch

from saccade.attention import MECHANISMS, to_mechanism
from saccade.nn import POSITIONS, Encoder, MultiHeadAttention
from saccade.nn.positions import ALiBi, Learned, Rotary, Sinusoidal, carried, to_position


@pytest.mark.parametrize("name", MECHANISMS)
def test_every_mechanism_carries_a_position_or_says_why_not(name):
    spec = to_mechanism(name)
    assert carried(Sinusoidal(4, 4), spec) is None
    assert carried(None, spec) is None
    rotary, alibi = Rotary(4, 4), ALiBi(4, 4)
    if name == "synthesizer":
        with pytest.raises(ValueError, match=r"mechanism must be one that reads queries and keys, as Rotary positions"):
            carried(rotary, spec)
    else:
        assert carried(rotary, spec) is rotary
    if spec.claims.exact:
        assert carried(alibi, spec) is alibi
    else:
        with pytest.raises(
            ValueError, match=r"mechanism must be full, a pattern or .*, as ALiBi positions add to scor"
        ):
            carried(alibi, spec)


@pytest.mark.parametrize("kind", [Rotary, ALiBi])
def test_extra_tokens_have_no_distance(kind):
    with pytest.raises(ValueError, match=f"extra_tokens must be 0 for {kind.__name__} positions, .*got 2"):
        Encoder(12, 3, 1, position=kind(12, 4), extra_tokens=2)
    Encoder(12, 3, 1, position=Learned(12, 4), extra_tokens=2)


def test_a_method_on_the_input_is_not_held_twice():
    encoder = Encoder(12, 3, 2, position=Learned(12, 4))
    assert not any("position" in name for name in encoder.state_dict())


@pytest.mark.parametrize("name", ["learned", "rotari", "none"])
def test_only_positions_of_attention_are_named_there(name):
    with pytest.raises(ValueError, match=f"position in attention must be one of alibi, rotary, got '{name}'"):
        MultiHeadAttention(12, 3, position=name)


def test_every_layer_of_an_encoder_must_carry_it():
    with pytest.raises(ValueError, match=r"mechanism must be full, .*got 'linear'"):
        Encoder(12, 3, 2, mechanism=["full", "linear"], position=ALiBi(12, 1))


def test_an_unknown_position_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"position must be one of alibi, .*got 'sinus' \(did you mean 'sinusoidal'"):
        to_position("sinus", 4, 4)
    assert isinstance(to_position("rotary", 4, 4), POSITIONS["rotary"])


def test_an_exact_layer_takes_a_bias():
    for name in (name for name in MECHANISMS if to_mechanism(name).claims.exact):
        layer = to_mechanism(name).build(2, 8)
        q, k, v = torch.randn(3, 1, 2, 40, 8, dtype=torch.float64)
        only = torch.full((1, 2, 40, 40), -1e9, dtype=torch.float64)
        only.diagonal(dim1=-2, dim2=-1).zero_()
        torch.testing.assert_close(layer(q, k, v, bias=only), v, msg=name)

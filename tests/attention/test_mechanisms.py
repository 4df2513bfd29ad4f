"""THE LIST of mechanisms: specs as values, and what the layers of patterns compute."""

import copy
import pickle
from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest
import torch
from mechanism_cases import PATTERNS, SPECS, D, H, assert_same, build, inputs, with_gradients
from torch import nn

import oracles
from saccade import Causal, Full, Global, Local, Random, Strided, attend
from saccade.attention import MECHANISMS, to_mechanism
from saccade.attention.mechanism import input_sizes
from saccade.claims import Claims

NAMES = (
    "full",
    "sparse",
    "local",
    "strided",
    "sparse_transformer",
    "longformer",
    "big_bird",
    "lsh",
    "routing",
    "sinkhorn",
    "linformer",
    "compressed",
    "linear",
    "synthesizer",
    "mixed",
)


def test_the_list_has_the_names_of_the_design():
    assert set(NAMES) <= set(MECHANISMS)
    assert all(MECHANISMS[name].name == name for name in MECHANISMS)


@pytest.mark.parametrize("name", MECHANISMS)
def test_every_mechanism_is_a_frozen_spec_with_defaults(name):
    kind = MECHANISMS[name]
    spec = kind()
    assert is_dataclass(kind)
    assert isinstance(spec.claims, Claims)
    assert set(spec.inputs) <= set(input_sizes(4, 8, 4, 8))
    assert not (spec.claims.shared_qk and "k" in spec.inputs)
    for field in fields(spec):
        with pytest.raises(FrozenInstanceError):
            setattr(spec, field.name, getattr(spec, field.name))
    assert kind() == spec
    assert hash(kind()) == hash(spec)
    assert str(spec) == name
    assert to_mechanism(name) == spec


@pytest.mark.parametrize("name", SPECS)
def test_text_copies_and_pickles_rebuild_the_spec(name):
    spec = SPECS[name]
    for again in (
        to_mechanism(str(spec)),
        to_mechanism(repr(spec)),
        copy.deepcopy(spec),
        pickle.loads(pickle.dumps(spec)),
    ):
        assert again == spec
        assert type(again) is type(spec)
        assert hash(again) == hash(spec)
        assert str(again) == str(spec)


def test_specs_differ_by_kind_and_by_option():
    assert len(set(SPECS.values())) == len(SPECS)
    assert MECHANISMS["sparse"](Local(128)) != MECHANISMS["local"](128)


@pytest.mark.parametrize(
    ("given", "spec"),
    [
        ("local(left=64)", MECHANISMS["local"](left=64)),
        ("local(64, 0)", MECHANISMS["local"](64, 0)),
        (" local ", MECHANISMS["local"]()),
        ("Local(128) | Global(2)", MECHANISMS["sparse"](Local(128) | Global(2))),
        ("Causal()", MECHANISMS["sparse"](Causal())),
        ("sparse(pattern=Local(3) & Strided(2))", MECHANISMS["sparse"](Local(3) & Strided(2))),
        ("sparse(Random(2, block=8))", MECHANISMS["sparse"](Random(2, block=8))),
        ("longformer(window=8, positions=[1, 3])", MECHANISMS["longformer"](window=8, positions=(1, 3))),
        ("big_bird(block=16, per_head=True)", MECHANISMS["big_bird"](block=16, per_head=True)),
        (Local(3), MECHANISMS["sparse"](Local(3))),
        (Full(), MECHANISMS["sparse"](Full())),
        (MECHANISMS["linear"](), MECHANISMS["linear"]()),
    ],
    ids=str,
)
def test_names_expressions_patterns_and_specs_all_mean_a_mechanism(given, spec):
    assert to_mechanism(given) == spec


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("locl", "must be one of .*did you mean 'local'"),
        ("bigbird", "did you mean 'big_bird'"),
        ("xyz", "must be one of .*big_bird.*full.*linear.*got 'xyz'"),
        ("local(window=3)", "window"),
        ("local(lift=3)", "did you mean 'left'"),
        ("local(left=-1)", "left must be .*got -1"),
        ("local(left=2.5)", "left must be .*got 2.5"),
        ("local(left='a')", "left must be .*got 'a'"),
        ("local(1, 2, 3)", "local"),
        ("strided(stride=0)", "stride must be .*got 0"),
        ("longformer(window=3)", "window must be .*got 3"),
        ("big_bird(window_blocks=2)", "window_blocks must be .*got 2"),
        ("big_bird(random_blocks=-1)", "random_blocks must be .*got -1"),
        ("sparse_transformer(stride=-1)", "stride must be .*got -1"),
        ("sparse(pattern=3)", "pattern must be .*got 3"),
        ("sparse(linear)", "pattern must be"),
        ("local | linear", "must be"),
        ("Local(1) | linear", "must be"),
        ("local(", "must be"),
        ("", "must be"),
        ("3", "must be"),
    ],
)
def test_what_is_no_mechanism_is_refused_with_the_nearest_name(unchecked, given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        to_mechanism(given)


@pytest.mark.parametrize("given", [3, None, Local, nn.Linear(2, 2)], ids=["number", "none", "class", "module"])
def test_what_is_not_even_text_is_refused(unchecked, given):
    with pytest.raises((TypeError, ValueError), match="mechanism must be"):
        to_mechanism(given)


@pytest.mark.parametrize("name", ["full", "big_bird", "linear"])
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"heads": 0}, "heads must be .*got 0"),
        ({"heads": -2}, "heads must be .*got -2"),
        ({"head_dim": 0}, "head_dim must be .*got 0"),
        ({"kv_heads": 4}, "kv_heads must be a divisor of the 6 heads, got 4"),
        ({"kv_heads": 0}, "kv_heads must be .*got 0"),
        ({"kv_heads": -1}, "kv_heads must be .*got -1"),
        ({"value_dim": 0}, "value_dim must be .*got 0"),
        ({"value_dim": -3}, "value_dim must be .*got -3"),
    ],
    ids=str,
)
def test_sizes_no_layer_can_have_are_refused(name, sizes, message):
    with pytest.raises(ValueError, match=message):
        SPECS[name].build(**{"heads": H, "head_dim": D} | sizes)


@pytest.mark.parametrize("name", SPECS)
def test_layers_are_modules_that_can_be_copied_saved_and_printed(name):
    layer = build(SPECS[name])
    q, k, v, _ = inputs(17, 17)
    out = layer(q, k, v)
    assert isinstance(layer, nn.Module)
    assert repr(layer)
    again = build(SPECS[name])
    again.load_state_dict(layer.state_dict())
    for other in (again, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(q, k, v), out)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_a_forward_pass_changes_nothing(name, causal):
    claims = SPECS[name].claims
    if causal and not claims.causal:
        pytest.skip("not claimed")
    layer = build(SPECS[name])
    q, k, v, _ = inputs(33, 33)
    before = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
    random_state = torch.get_rng_state()
    first = layer(q, k, v, causal=causal)
    keys = 7 if claims.cross else 5
    layer(q[:1, :, :5], k[:1, :, :keys], v[:1, :, :keys], causal=causal)
    assert torch.equal(layer(q, k, v, causal=causal), first)
    assert torch.equal(layer.eval()(q, k, v, causal=causal), first)
    after = layer.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize(("n_q", "n_k", "q_start"), [(37, 37, 0), (3, 37, 34), (11, 29, 0)], ids=str)
def test_pattern_mechanisms_equal_masked_softmax(name, causal, n_q, n_k, q_start):
    """The definition, `exact`: the dense mask of the pattern, and a softmax under it."""
    pattern = PATTERNS[name].causal() if causal else PATTERNS[name]
    q, k, v, upstream = inputs(n_q, n_k)
    mask = torch.arange(n_k) < torch.tensor([[n_k], [n_k - 8]])
    layer = build(SPECS[name])
    bound = pattern.bind(n_q, n_k, q_start, lengths=(n_k, n_k - 8), heads=H)
    dense = bound.dense()
    seen = dense.expand(*(1,) * (4 - dense.ndim), *dense.shape) & mask[:, None, None]
    wanted = with_gradients(lambda *qkv: oracles.attention(*qkv, seen), q, k, v, upstream=upstream)
    actual = with_gradients(
        lambda *qkv: layer(*qkv, key_mask=mask, causal=causal, q_start=q_start), q, k, v, upstream=upstream
    )
    assert_same(actual, wanted)
    assert torch.equal(layer(q, k, v, mask, causal, q_start), attend(q, k, v, pattern, key_mask=mask, q_start=q_start))


def test_the_causal_sparse_transformer_is_the_papers():
    n = 23
    q, k, _, _ = inputs(n, n, batch=1, groups=H)
    identity = torch.eye(n, dtype=torch.float64).expand(1, H, n, n)
    weights = MECHANISMS["sparse_transformer"](stride=5).build(H, D, value_dim=n)(q, k, identity, causal=True)
    expected = oracles.dense(oracles.sparse_transformer(5), n, n)
    assert torch.equal((weights > 0)[0, 0], expected)


def test_layers_of_big_bird_draw_differently():
    spec = SPECS["big_bird"]
    q, k, v, _ = inputs(80, 80)
    first, again, second = (build(spec, layer=layer)(q, k, v) for layer in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)

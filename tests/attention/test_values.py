"""Every mechanism of THE LIST as a value that is written, read, copied and saved, and its layers with it."""

import copy
import io
import pickle

import pytest
import torch
from test_contract import MORE, SMALL

from saccade import config
from saccade.attention import MECHANISMS, to_mechanism
from saccade.attention.mechanism import arguments, input_sizes
from saccade.tasks import load_recipe

SPECS = {
    **{name: kind() for name, kind in MECHANISMS.items()},
    **{f"{name}_small": MECHANISMS[name](**options) for name, options in SMALL.items() if options},
    **{name: to_mechanism(text) for name, text in MORE.items()},
}
H, G, D, E, N = 6, 3, 4, 5, 37


def built(name, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SPECS[name].build(H, D, G, E, layer=1).eval()


def called(name, layer, dtype=torch.float32, causal=False):
    generator = torch.Generator().manual_seed(5)
    drawn = {
        part: torch.randn(2, heads, N, dim, generator=generator).to(dtype)
        for part, (heads, dim) in input_sizes(H, D, G, E).items()
    }
    given = {part: drawn[part] for part in SPECS[name].inputs}
    return layer(**arguments(given), key_mask=torch.arange(N) < torch.tensor([[N], [29]]), causal=causal)


def moved(layer):
    """With parameters that no build begins with."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_is_read_back_from_what_it_prints(name):
    spec = SPECS[name]
    for again in (to_mechanism(repr(spec)), pickle.loads(pickle.dumps(spec)), copy.deepcopy(spec), copy.copy(spec)):
        assert type(again) is type(spec)
        assert again == spec
        assert hash(again) == hash(spec)
        assert repr(again) == repr(spec)
        assert again.claims == spec.claims
        assert again.inputs == spec.inputs


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_goes_through_a_recipe(name, tmp_path):
    text = repr(SPECS[name])
    recipe = load_recipe(None, [f"model.mechanism={text}"])
    assert to_mechanism(recipe.model.mechanism) == SPECS[name]
    path = tmp_path / "recipe.toml"
    path.write_text(config.dump(recipe))
    assert load_recipe(path) == recipe
    path.write_text(f'[model]\nlayers = 2\nmechanism = ["{text}", "full"]\n')
    assert to_mechanism(load_recipe(path).model.mechanism[0]) == SPECS[name]


@pytest.mark.parametrize("name", SPECS)
def test_specs_of_any_two_names_differ(name):
    assert [other for other in SPECS if SPECS[other] == SPECS[name]] == [name]


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_copies_of_a_layer_compute_the_same(name, causal):
    if causal and not SPECS[name].claims.causal:
        pytest.skip("not claimed")
    layer = moved(built(name))
    out = called(name, layer, causal=causal)
    saved = io.BytesIO()
    torch.save(layer.state_dict(), saved)
    saved.seek(0)
    loaded = built(name, seed=9)
    loaded.load_state_dict(torch.load(saved))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        assert not other.training or other is loaded
        assert torch.equal(called(name, other, causal=causal), out)


@pytest.mark.parametrize("name", SPECS)
def test_a_copy_shares_nothing(name):
    layer = built(name)
    before, other = {key: value.clone() for key, value in layer.state_dict().items()}, copy.deepcopy(layer)
    with torch.no_grad():
        for value in other.state_dict().values():
            value.zero_()
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


@pytest.mark.parametrize("name", SPECS)
def test_a_layer_in_double_computes_in_double(name):
    layer = moved(built(name))
    single, double = called(name, layer), called(name, copy.deepcopy(layer).double(), torch.float64)
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-4)
    again = copy.deepcopy(layer).double().float()
    assert torch.equal(called(name, again), single)


@pytest.mark.parametrize("name", SPECS)
def test_a_layer_is_built_without_memory_and_then_filled(name):
    with torch.device("meta"):
        empty = SPECS[name].build(H, D, G, E, layer=1)
    layer = moved(built(name))
    filled = empty.to_empty(device="cpu").eval()
    filled.load_state_dict(layer.state_dict())
    assert torch.equal(called(name, filled), called(name, layer))


@pytest.mark.parametrize("name", SPECS)
def test_two_builds_from_one_seed_are_one_layer(name):
    first, second = built(name), built(name)
    assert first.state_dict().keys() == second.state_dict().keys()
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())
    assert torch.equal(called(name, first), called(name, second))

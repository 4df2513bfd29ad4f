"""Names: what is registered, options within them, models that are saved and loaded, and what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra: pip install 'saccade[hf]'")

import hf_models as hf
from transformers import AttentionInterface, AttentionMaskInterface

import saccade.integrations.transformers as integration
from saccade import Global, Local
from saccade.attention import MECHANISMS, after_step
from saccade.attention.mechanisms.linear import LinearAttention
from saccade.integrations.transformers import register
from saccade.integrations.transformers.names import drawback, register_all

NEED_MORE = {"lsh", "routing", "linformer", "compressed"}


def test_what_has_no_parameters_is_registered_for_attention_and_for_masks():
    names = {f"saccade:{name}" for name, kind in MECHANISMS.items() if not drawback(kind())}
    assert {"saccade:full", "saccade:local", "saccade:big_bird", "saccade:linear", "saccade:sinkhorn"} <= names
    assert not {f"saccade:{name}" for name in NEED_MORE} & names
    for registry in (AttentionInterface, AttentionMaskInterface):
        assert names <= set(registry().keys())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("linformer", "its layers learn parameters"),
        ("full(score='additive')", "its layers learn parameters"),
        ("compressed", "its layers learn parameters"),
        ("routing", "training moves what its layers hold"),
        ("lsh", "it does not read the keys, which the model has learned"),
        ("mixed([(local, 1), (linformer, 1)])", "its layers learn parameters"),
        ("performer(features=8, redraw=1)", "the steps after which it redraws do not reach a name, only redraw=0 does"),
        ("mixed([(local, 1), (performer(redraw=9), 1)])", "the steps .* do not reach a name, only redraw=0 does"),
        ("mixed([(local, 1), (routing, 1)])", "training moves what its layers hold"),
    ],
)
def test_what_has_something_to_keep_is_refused_by_name(text, reason):
    with pytest.raises(ValueError, match=rf"\({reason}\): use replace_attention\(model, ...\), got") as caught:
        register(text)
    assert str(caught.value).startswith("mechanism must be one without parameters")
    with pytest.raises(ValueError, match="use replace_attention"):
        hf.gpt2().set_attn_implementation(f"saccade:{text}")


@pytest.mark.parametrize("text", ["performer", "performer(features=8)", "performer(redraw=0)"])
def test_a_performer_by_name_keeps_its_directions(text):
    model = hf.gpt2().train()
    model.set_attn_implementation(f"saccade:{text}")
    before = model(hf.tokens()).logits
    for _ in range(3):
        after_step(model)
    assert torch.equal(model(hf.tokens()).logits, before)


def test_a_mechanism_of_another_package_follows(monkeypatch):
    class Mine(LinearAttention):
        name = "mine"

    monkeypatch.setitem(MECHANISMS, "mine", Mine)
    model = hf.gpt2()
    model.set_attn_implementation("saccade:mine")
    assert model(hf.tokens()).logits.isfinite().all()
    register_all()
    assert "saccade:mine" in AttentionInterface().valid_keys()


@pytest.mark.parametrize("name", ["local(left=5, right=1)", "Local(5, 1)", "Local( 5,1 )|Global(1)", "local(5, 1)"])
def test_options_in_the_name_work_wherever_a_name_is_given(name):
    name = f"saccade:{name}"
    text = hf.tokens()
    model = hf.gpt2()
    model.set_attn_implementation(name)
    wanted = model(text).logits
    made = type(model)._from_config(model.config, attn_implementation=name).double().eval()
    made.load_state_dict(model.state_dict())
    assert made.config._attn_implementation == name
    torch.testing.assert_close(made(text).logits, wanted)


def test_register_gives_the_name_of_a_spec_or_a_pattern():
    assert register(MECHANISMS["local"](left=7)) == "saccade:local(left=7)"
    assert register(Local(3) | Global(1)) == "saccade:Local(3) | Global(1)"
    assert register("linear") == "saccade:linear"


def test_a_model_is_saved_as_it_was_and_loaded_by_a_name_that_was_not_heard_of_before(tmp_path):
    model, text, name = hf.gpt2(), hf.tokens(), "saccade:local(left=3)"
    keys = set(model.state_dict())
    model.set_attn_implementation(name)
    wanted = model(text).logits
    assert set(model.state_dict()) == keys
    model.save_pretrained(tmp_path)
    assert "saccade" not in (tmp_path / "config.json").read_text(), "transformers saves no choice of attention"
    for registry in (AttentionInterface, AttentionMaskInterface):
        del registry._global_mapping[name]
    loaded = type(model).from_pretrained(tmp_path, attn_implementation=name, dtype=torch.float64).eval()
    torch.testing.assert_close(loaded(text).logits, wanted)


def run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lcoal", r"mechanism must be one of .*, got 'lcoal' \(did you mean 'local'\?\)"),
        ("local(lft=3)", r"option of local must be one of left, right, got 'lft' \(did you mean 'left'\?\)"),
        ("local(left=-1)", "left must be a whole number, at least 0, or inf, got -1"),
        ("", "mechanism must be an expression"),
    ],
)
def test_a_wrong_name_or_option_gives_the_error_of_saccade(name, said):
    model = hf.gpt2()
    with pytest.raises(ValueError, match=said):
        model.set_attn_implementation(f"saccade:{name}")
    with pytest.raises(ValueError, match=said):
        type(model)._from_config(model.config, attn_implementation=f"saccade:{name}")


def test_a_wrong_name_of_somebody_else_gives_the_error_of_transformers():
    with pytest.raises(ValueError, match="is not supported"):
        hf.gpt2().set_attn_implementation("sdpaa")


def test_saccade_does_not_import_transformers_and_says_what_to_install_where_it_is_missing():
    program = """
import sys
import saccade, saccade.nn, saccade.checking, saccade.integrations
assert "transformers" not in sys.modules
sys.modules["transformers"] = None
import saccade.integrations.transformers
"""
    wanted = "ModuleNotFoundError: saccade.integrations.transformers needs transformers: pip install 'saccade[hf]'"
    assert wanted in run(program).stderr


def test_public_names_are_sorted_and_real():
    names = integration.__all__
    assert names == sorted(names, key=lambda name: (not name[0].isupper(), name))
    assert all(hasattr(integration, name) for name in names)


def test_compiled_models_are_those_of_before_and_theirs_stay_whole_graphs():
    program = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch, hf_models as hf, saccade.integrations.transformers
text = hf.tokens()
for name in ("sdpa", "saccade:local(left=3)", "saccade:linear"):
    model = hf.llama()
    model.set_attn_implementation(name)
    compiled = torch.compile(model, backend="eager", fullgraph=name == "sdpa")
    torch.testing.assert_close(compiled(text, use_cache=False).logits, model(text, use_cache=False).logits)
"""
    result = run(program)
    assert result.returncode == 0, result.stderr

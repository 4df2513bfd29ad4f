"""Cross attention is told from attention within a sequence, also where both have as many queries as keys."""

import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra: pip install 'saccade[hf]'")

import hf_models as hf
import transformers as theirs

from saccade.integrations.transformers import replace_attention
from saccade.integrations.transformers.cross import is_cross, mark_cross

NAME = "saccade:local(left=2)"


def moonshine():
    sizes = {"hidden_size": 32, "intermediate_size": 48, "vocab_size": hf.WORDS, "initializer_range": hf.SPREAD}
    layers = {f"{side}_num_hidden_layers": 2 for side in ("encoder", "decoder")}
    heads = {f"{side}_num_attention_heads": 4 for side in ("encoder", "decoder")}
    return hf.built(theirs.MoonshineModel, theirs.MoonshineConfig(**sizes, **layers, **heads))


def decoded(model):
    """As many queries as keys in its cross attention."""
    encoded = hf.numbers(2, 19, 32)
    return model.decoder(input_ids=hf.tokens(), encoder_hidden_states=encoded, use_cache=False).last_hidden_state


def test_a_window_leaves_cross_attention_dense_that_only_its_name_tells():
    model = moonshine()
    hf.hold_against(model, lambda q, k: (k >= q - 2) & (k <= q))
    wanted = decoded(model)
    model.set_attn_implementation(NAME)
    torch.testing.assert_close(decoded(model), wanted, rtol=0, atol=1e-10)
    again = type(model)._from_config(model.config, attn_implementation=NAME).double().eval()
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(decoded(again), wanted, rtol=0, atol=1e-10)


def test_replacing_leaves_it_out():
    rows = replace_attention(moonshine(), "local(left=2)").rows
    assert {row.mechanism for row in rows if "encoder_attn" in row.module} == {"as before"}
    assert {row.mechanism for row in rows if "self_attn" in row.module} == {"local(left=2)"}


CLASSES = {  # a class, and how modules are called in it that attend across and within
    "Blip2QFormerModel": (theirs.Blip2QFormerConfig, "crossattention.attention", "0.attention.attention"),
    "Pix2StructTextModel": (
        theirs.Pix2StructTextConfig,
        "encoder_decoder_attention.attention",
        "self_attention.attention",
    ),
    "BridgeTowerModel": (theirs.BridgeTowerConfig, "crossattention.self", "attention.self"),
    "BartModel": (theirs.BartConfig, "encoder_attn", "self_attn"),
    "LightGlueForKeypointMatching": (theirs.LightGlueConfig, "cross_attention", "self_attention"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_it_is_told_in_families_that_do_not_say_so(name):
    kind, across, within = CLASSES[name]
    with torch.device("meta"):
        model = getattr(theirs, name)(kind())
    mark_cross(model)
    modules = dict(model.named_modules())
    found = [is_cross(module) for path, module in modules.items() if path.endswith("." + across)]
    assert found
    assert all(found)
    others = [path for path in modules if path.endswith(within) and not path.endswith("." + across)]
    others = [path for path in others if "crossattention" not in path]
    assert others
    assert not any(is_cross(modules[path]) for path in others)

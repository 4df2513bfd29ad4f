"""Families: a model that would ignore the name is refused wherever it is given; parts are judged by themselves."""

import copy

import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra: pip install 'saccade[hf]'")

import hf_models as hf
import transformers as theirs
from transformers import AutoModel, GPT2LMHeadModel, PreTrainedModel

import saccade.integrations.transformers  # noqa: F401 - registers
from saccade.integrations.transformers.families import own_way

NAME = "saccade:local(left=4)"
OWN = ["Bloom", "Mpt", "CodeGen", "XGLM", "Mvp", "SqueezeBert", "Longformer", "DebertaV2", "XLNet", "BigBird"]
OWN += ["OpenAIGPT", "XLM", "ImageGPT", "Flaubert", "RoFormer", "Reformer"]
TABLES = ["GPTJ", "Falcon", "GPTNeo", "Sam"]
NONE = ["FNet", "Mamba", "Mamba2", "ConvNext"]
GOOD = ["Bert", "GPT2", "Llama", "ViT", "Whisper", "Mistral", "Gemma3", "Moonshine", "Blip2", "Bart", "Jamba", "Llava"]
GOOD += [
    "PaliGemma",
    "VisionEncoderDecoder",
    "EncoderDecoder",
    "DPRContextEncoder",
    "Roberta",
    "GPTNeoX",
    "Phi",
    "CLIP",
]


def model_class(name):
    kinds = (getattr(theirs, name + end, None) for end in ("Model", "ForConditionalGeneration", ""))
    return next(kind for kind in kinds if kind is not None)


@pytest.mark.parametrize(
    ("names", "reason"),
    [(OWN, "computes its attention by itself, in "), (TABLES, "looks its attention up"), (NONE, "has no attention")],
    ids=["own", "tables", "none"],
)
def test_what_does_not_call_the_registry_is_told_from_its_class(names, reason):
    for name in names:
        assert own_way(model_class(name)).startswith(reason), name


def test_what_calls_the_registry_or_holds_what_does_is_accepted():
    for name in GOOD:
        assert not own_way(model_class(name)), name


SMALL = {
    "bloom": {"hidden_size": 16, "n_layer": 1, "n_head": 2, "vocab_size": 11},
    "gptj": {"n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 4, "vocab_size": 11},
    "mamba": {"hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 11},
}


@pytest.mark.parametrize(
    ("family", "why"), [("bloom", "BloomAttention"), ("gptj", "a table"), ("mamba", "no attention")]
)
def test_a_family_that_goes_its_own_way_is_refused_wherever_a_name_is_given(family, why, tmp_path):
    config = theirs.AutoConfig.for_model(family, **SMALL[family])
    model = AutoModel.from_config(config)
    model.save_pretrained(tmp_path)
    said = rf"model for saccade:local\(left=4\) must be one that calls transformers' attention .*{why}"
    was = model.config._attn_implementation
    for ask in (
        lambda: AutoModel.from_config(copy.deepcopy(config), attn_implementation=NAME),
        lambda: AutoModel.from_pretrained(tmp_path, attn_implementation=NAME),
        lambda: model.set_attn_implementation(NAME),
        lambda: model.set_attn_implementation({"": NAME}),
    ):
        with pytest.raises(ValueError, match=said):
            ask()
    assert model.config._attn_implementation == was


def composite(attention=None):
    """A vision model that calls the registry, and a decoder that does not."""
    encoder = hf.vit().config
    decoder = theirs.BloomConfig(**SMALL["bloom"]) if attention is None else hf.bert(is_decoder=True).config
    return theirs.VisionTextDualEncoderConfig.from_vision_text_configs(encoder, decoder, projection_dim=8)


def test_the_parts_of_a_composite_are_judged_by_themselves():
    model = theirs.VisionTextDualEncoderModel(composite())
    with pytest.raises(
        ValueError, match=r"got 'BloomModel, which computes its attention by itself, in BloomAttention'"
    ):
        model.set_attn_implementation(NAME)
    with pytest.raises(ValueError, match="BloomModel, which"):
        model.set_attn_implementation({"text_config": NAME})
    model.set_attn_implementation({"vision_config": NAME})
    assert model.vision_model.config._attn_implementation == NAME
    assert model.text_model.config._attn_implementation != NAME
    both = theirs.VisionTextDualEncoderModel(composite("bert"))
    both.set_attn_implementation(NAME)
    assert both.text_model.config._attn_implementation == both.vision_model.config._attn_implementation == NAME


def test_a_class_of_ones_own_is_what_its_base_is():
    class Mine(GPT2LMHeadModel):
        pass

    class Alone(PreTrainedModel):
        pass

    assert not own_way(Mine)
    assert own_way(type("Other", (theirs.BloomModel,), {})).startswith("computes its attention by itself")
    assert not own_way(Alone), "this file has models of others among its names"


def test_a_module_of_an_accepted_family_that_adds_the_mask_itself_raises():
    """BigBird-Pegasus calls the registry in its decoder and not in its encoder."""
    sides = ("encoder", "decoder")
    sizes = {f"{side}_{name}": n for side in sides for name, n in (("layers", 1), ("ffn_dim", 16))}
    heads = {f"{side}_attention_heads": 2 for side in sides}
    config = theirs.BigBirdPegasusConfig(vocab_size=11, d_model=16, attention_type="original_full", **sizes, **heads)
    model = theirs.BigBirdPegasusModel(config).eval()
    model.set_attn_implementation(NAME)
    text = hf.tokens() % 11
    with pytest.raises(ValueError, match=r"attention mask must be handed on to the attention as it is, .* in add'"):
        model(text, attention_mask=torch.ones_like(text), decoder_input_ids=text)

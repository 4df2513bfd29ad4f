"""Generation: with a cache of any kind as without one, and a way out where a mechanism has no use for a cache."""

import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra: pip install 'saccade[hf]'")

import hf_models as hf

import saccade.integrations.transformers  # noqa: F401 - registers

GREEDY = {"max_new_tokens": 6, "do_sample": False}
CACHED = ["full", "local(left=3)", "linear", "longformer(window=4)", "big_bird(block=4)", "strided(stride=3)"]
CACHED += ["Local(3, 0) | Global(2, rows=False)", "mixed([(local(left=3), 2), (linear, 2)])"]


def prompt(family, padded=False):
    """What generation begins with; padded on the left."""
    if family == "whisper":
        return {"input_features": hf.numbers(2, 8, 40), "decoder_input_ids": hf.tokens(6)}
    if not padded:
        return {"input_ids": hf.tokens(8)}
    mask = torch.arange(8) >= torch.tensor([[0], [5]])
    return {"input_ids": hf.tokens(8).masked_fill(~mask, 0), "attention_mask": mask.long()}


@pytest.mark.parametrize(
    ("family", "name"), [(f, n) for f in hf.DECODERS for n in CACHED if f == "whisper" or n in CACHED[:3]]
)
def test_generation_with_a_cache_equals_that_without(family, name):
    model, given = hf.DECODERS[family](), prompt(family)
    model.set_attn_implementation(f"saccade:{name}")
    wanted = model.generate(**given, **GREEDY, use_cache=False)
    assert torch.equal(model.generate(**given, **GREEDY, use_cache=True), wanted)
    assert torch.equal(model.generate(**given, **GREEDY, cache_implementation="static"), wanted)


@pytest.mark.parametrize(
    ("family", "name"), [(f, n) for f in ("gpt2", "llama") for n in CACHED if f == "llama" or n in CACHED[:3]]
)
def test_logits_with_a_cache_equal_those_without_also_behind_padding_on_the_left(family, name):
    model, given = hf.DECODERS[family](), prompt(family, padded=True)
    model.set_attn_implementation(f"saccade:{name}")
    options = {**GREEDY, "output_logits": True, "return_dict_in_generate": True}
    wanted = model.generate(**given, **options, use_cache=False)
    for cache in ({"use_cache": True}, {"cache_implementation": "static"}):
        actual = model.generate(**given, **options, **cache)
        assert torch.equal(actual.sequences, wanted.sequences)
        for mine, theirs in zip(actual.logits, wanted.logits, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["full", "local(left=3)", "linear"])
def test_what_is_padded_on_the_left_continues_as_it_does_alone(name):
    model, given = hf.gpt2(), prompt("gpt2", padded=True)
    model.set_attn_implementation(f"saccade:{name}")
    both = model.generate(**given, **GREEDY)
    alone = model.generate(given["input_ids"][1:, 5:], **GREEDY)
    assert torch.equal(both[1, 5:], alone[0])


@pytest.mark.parametrize("name", ["full", "local(left=3)"])
def test_beams_are_reordered_with_their_cache(name):
    model, given = hf.llama(), prompt("llama")
    model.set_attn_implementation(f"saccade:{name}")
    wanted = model.generate(**given, max_new_tokens=6, num_beams=3, use_cache=False)
    assert torch.equal(model.generate(**given, max_new_tokens=6, num_beams=3), wanted)


@pytest.mark.parametrize("family", hf.DECODERS)
def test_a_mechanism_of_one_sequence_refuses_a_cache_and_says_what_to_do(family):
    model, given = hf.DECODERS[family](), prompt(family)
    model.set_attn_implementation("saccade:sinkhorn(block=4)")
    with pytest.raises(ValueError, match=r"without a cache \(use_cache=False\), as sinkhorn"):
        model.generate(**given, **GREEDY)
    out = model.generate(**given, **GREEDY, use_cache=False)
    assert out.shape[1] >= 6


@pytest.mark.parametrize("name", ["full", "local(left=3)", "linear"])
def test_a_prompt_in_chunks_equals_the_whole(name):
    model, text = hf.llama(), hf.tokens(15)
    model.set_attn_implementation(f"saccade:{name}")
    whole = model(text).logits
    first = model(text[:, :6], use_cache=True)
    second = model(text[:, 6:], past_key_values=first.past_key_values)
    torch.testing.assert_close(second.logits, whole[:, 6:], rtol=0, atol=1e-9)

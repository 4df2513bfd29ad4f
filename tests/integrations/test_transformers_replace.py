"""`replace_attention`: weights are kept, a report says so, and what is new learns and is saved with the model."""

import copy
import pickle

import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra: pip install 'saccade[hf]'")

import hf_models as hf
from transformers import GPT2LMHeadModel, T5Config, T5EncoderModel

from saccade.attention import AttentionLayer, after_step
from saccade.integrations.transformers import replace_attention

ENCODERS = "linformer(rank=6, max_length=64)"
CASES = [
    ("bert", ENCODERS, "", 2),
    ("bert", "routing(clusters=3)", "", 2),
    ("gpt2", "compressed(stride=2)", "", 2),
    ("llama", "compressed(stride=2)", "", 2),
    ("llama", "full(score='cosine')", "", 2),
    ("vit", ENCODERS, "", 2),
    ("whisper", ENCODERS, "encoder.layers", 2),
    ("whisper", "compressed(stride=2)", "", 4),
]


def layers(model):
    return [module for module in model.modules() if isinstance(module, AttentionLayer)]


@pytest.mark.parametrize(("family", "mechanism", "only", "count"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_weights_are_kept_and_new_parameters_learn(family, mechanism, only, count):
    model, given = hf.FAMILIES[family](), hf.inputs(family, padded=family != "vit")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    report = replace_attention(model, mechanism, only)
    after = model.state_dict()
    for name, weight in before.items():
        assert torch.equal(after[name], weight)
    assert len(layers(model)) == count == sum(row.mechanism != "as before" for row in report.rows)
    assert all(".saccade." in name for name in after.keys() - before.keys())
    _, gradients = hf.gradients(model.train(), given)
    new = [name for name, _ in model.named_parameters() if ".saccade." in name]
    assert sum(row.added for row in report.rows) == sum(dict(model.named_parameters())[name].numel() for name in new)
    assert all(gradients[name].abs().sum() > 0 for name in new)


def test_the_layer_is_what_the_mechanism_builds_on_the_projections_of_the_model():
    model, text = hf.bert(), hf.tokens()
    replace_attention(model, ENCODERS)
    module = model.encoder.layer[0].attention.self
    x = hf.numbers(2, 19, hf.WIDTH)
    parts = [p(x).unflatten(2, (hf.HEADS, -1)).transpose(1, 2) for p in (module.query, module.key, module.value)]
    wanted = module.saccade(*parts).transpose(1, 2).flatten(2)
    torch.testing.assert_close(module(x)[0], wanted, rtol=0, atol=1e-12)
    assert model(text).last_hidden_state.isfinite().all()


def test_the_report_prints_a_table():
    report = replace_attention(hf.whisper(), "linformer(rank=6, max_length=64)", only="encoder.layers")
    lines = str(report).splitlines()
    assert lines[0].split() == ["module", "mechanism", "kept", "not", "read", "new", "parameters"]
    assert len(lines) == 1 + 6
    kept = "q_proj, k_proj, v_proj, out_proj"
    assert lines[1].split("  ")[0] == "model.encoder.layers.0.self_attn"
    assert kept in lines[1]
    assert lines[1].endswith(" 768")
    assert "as before" in lines[-1]


@pytest.mark.parametrize(("family", "unread"), [("bert", "key"), ("llama", "k_proj"), ("gpt2", "the keys of c_attn")])
def test_a_projection_that_is_not_read_is_named(family, unread):
    kept = hf.FAMILIES[family](**({"num_key_value_heads": 4} if family == "llama" else {}))
    report = replace_attention(kept, "lsh(bucket=4, rounds=2)")
    assert {row.unread for row in report.rows} == {(unread,)}
    out = hf.output(kept, {"input_ids": hf.tokens(), **({} if family == "bert" else {"use_cache": False})})
    assert out.isfinite().all()


@pytest.mark.parametrize(
    ("family", "unread"),
    [("bert", ("query", "key")), ("gpt2", ("the queries of c_attn", "the keys of c_attn"))],
)
def test_what_reads_neither_queries_nor_keys_names_both(family, unread):
    report = replace_attention(hf.FAMILIES[family](), "synthesizer('random', max_length=64)")
    assert {row.unread for row in report.rows} == {unread}


def test_a_name_given_later_says_that_it_does_not_reach_what_was_replaced(caplog):
    model = hf.gpt2()
    replace_attention(model, "compressed(stride=2)")
    assert not caplog.text
    wanted = model(hf.tokens()).logits
    model.set_attn_implementation("saccade:local(left=2)")
    assert "2 modules (transformer.h.0.attn, ...) keep the mechanism that replace_attention gave them" in caplog.text
    assert torch.equal(model(hf.tokens()).logits, wanted)
    model.set_attn_implementation("sdpa")
    assert "no longer attend by the mechanism that replace_attention gave them" in caplog.text


def test_layers_that_share_do_so():
    model = hf.bert()
    report = replace_attention(model, "linformer(rank=6, max_length=64, sharing='layerwise')")
    assert [row.added for row in report.rows] == [6 * 64, 0]
    assert sum(".saccade." in name for name in model.state_dict()) == 1


def test_what_training_moves_moves_after_the_step():
    model = hf.bert().train()
    replace_attention(model, "routing(clusters=3)")
    before = {name: x.clone() for name, x in model.state_dict().items() if ".saccade." in name}
    model(hf.tokens())
    after_step(model)
    assert any(not torch.equal(model.state_dict()[name], x) for name, x in before.items())


def test_what_is_left_out_stays_dense_and_keeps_its_output():
    model, given = hf.whisper(), hf.inputs("whisper")
    model.set_attn_implementation("sdpa")
    wanted = model.model.decoder(given["decoder_input_ids"], encoder_hidden_states=hf.numbers(2, 20, hf.WIDTH))
    replace_attention(model, ENCODERS, only="encoder.layers")
    actual = model.model.decoder(given["decoder_input_ids"], encoder_hidden_states=hf.numbers(2, 20, hf.WIDTH))
    torch.testing.assert_close(actual.last_hidden_state, wanted.last_hidden_state, rtol=0, atol=1e-10)


def test_a_second_mechanism_may_go_into_other_modules():
    model = hf.whisper()
    replace_attention(model, ENCODERS, only="encoder.layers")
    report = replace_attention(model, "local(left=3)", only="decoder.layers")
    names = [row.mechanism for row in report.rows]
    assert names == [ENCODERS] * 2 + ["local(left=3)", "as before"] * 2
    assert hf.output(model, hf.inputs("whisper")).isfinite().all()


def test_generation_of_a_model_with_new_parameters_is_that_without_a_cache():
    model, text = hf.llama(), hf.tokens(8)
    replace_attention(model, "compressed(stride=2)")
    wanted = model.generate(text, max_new_tokens=6, do_sample=False, use_cache=False)
    assert torch.equal(model.generate(text, max_new_tokens=6, do_sample=False), wanted)


def test_a_model_with_new_parameters_is_copied_pickled_saved_and_loaded(tmp_path):
    model, text = hf.gpt2(), hf.tokens()
    replace_attention(model, "compressed(stride=2)")
    wanted = model(text).logits
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other(text).logits, wanted)
    model.save_pretrained(tmp_path)
    loaded = GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float64).eval()
    replace_attention(loaded, "compressed(stride=2)")
    from safetensors.torch import load_model

    load_model(loaded, tmp_path / "model.safetensors")
    torch.testing.assert_close(loaded(text).logits, wanted)


@pytest.mark.parametrize(
    ("family", "mechanism", "only", "said"),
    [
        ("gpt2", "linformer", "", r"mechanism must be one that can be causal for transformer.h.0.attn \(or leave it"),
        ("whisper", "linformer", "", "one that can be causal for model.decoder.layers.0.self_attn"),
        ("bert", "linformer", "decoder", "only must be part of the name of an attention module of BertModel, such as"),
        (
            "whisper",
            "linformer",
            "encoder_attn",
            "mechanism must be one that crosses sequences and gives no key a place",
        ),
        ("bert", "lnformer", "", "did you mean 'linformer'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_changes(family, mechanism, only, said):
    model = hf.FAMILIES[family]()
    was = model.config._attn_implementation
    with pytest.raises(ValueError, match=said):
        replace_attention(model, mechanism, only)
    assert not layers(model)
    assert model.config._attn_implementation == was


def test_a_mechanism_that_reads_more_is_refused():
    from saccade.attention.mechanisms.linear import LinearAttention

    class Gated(LinearAttention):
        name, inputs = "gated", ("q", "k", "v", "gate")

    with pytest.raises(ValueError, match="reads queries, keys and values, which is all that a model has"):
        replace_attention(hf.bert(), Gated())
    from saccade.integrations.transformers import register

    with pytest.raises(ValueError, match="it reads a gate of its own"):
        register(Gated())


def test_a_family_of_another_kind_is_refused():
    model = T5EncoderModel(T5Config(d_model=16, d_kv=4, num_heads=4, num_layers=1, d_ff=16, vocab_size=11))
    with pytest.raises(ValueError, match=r"model must be one with attention modules .*got 'T5EncoderModel'"):
        replace_attention(model, "linear")

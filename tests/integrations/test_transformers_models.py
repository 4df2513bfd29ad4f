"""Five families of models: by name ours equals theirs, and a window equals theirs with that window masked."""

import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra: pip install 'saccade[hf]'")

import hf_models as hf

import saccade.integrations.transformers  # noqa: F401 - registers


def close(actual, wanted, within=1e-10):
    torch.testing.assert_close(actual, wanted, rtol=0, atol=within)


def masked(padded, family):
    return padded and family != "vit"


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("family", hf.FAMILIES)
@pytest.mark.parametrize("theirs", ["eager", "sdpa"])
def test_full_equals_theirs_forward_and_backward(family, padded, theirs):
    model, given = hf.FAMILIES[family](), hf.inputs(family, masked(padded, family))
    model.set_attn_implementation(theirs)
    wanted, wanted_gradients = hf.gradients(model, given)
    model.set_attn_implementation("saccade:full")
    actual, actual_gradients = hf.gradients(model, given)
    single = theirs == "eager" and family in ("llama", "vit")  # whose eager softmax is one of 32 bits
    within = 1e-5 if single else 1e-10
    close(actual, wanted, within)
    assert actual_gradients.keys() == wanted_gradients.keys()
    for name, gradient in wanted_gradients.items():
        close(actual_gradients[name], gradient, within)


@pytest.mark.parametrize("family", hf.FAMILIES)
def test_full_equals_eager_in_single_precision(family):
    model, given = hf.FAMILIES[family]().float(), hf.inputs(family)
    given = {name: x.float() if x.is_floating_point() else x for name, x in given.items()}
    model.set_attn_implementation("eager")
    wanted = hf.output(model, given)
    model.set_attn_implementation("saccade:full")
    close(hf.output(model, given), wanted, 1e-5 * wanted.abs().max().item())


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("family", hf.FAMILIES)
def test_local_equals_a_window_that_is_masked(family, padded):
    model, given = hf.FAMILIES[family](), hf.inputs(family, masked(padded, family))
    hf.hold_against(model, lambda q, k: (k >= q - 4) & (k <= q + 2))
    wanted, wanted_gradients = hf.gradients(model, given)
    model.set_attn_implementation("saccade:local(left=4, right=2)")
    actual, actual_gradients = hf.gradients(model, given)
    close(actual, wanted)
    for name, gradient in wanted_gradients.items():
        close(actual_gradients[name], gradient)
    model.set_attn_implementation("saccade:full")
    assert (hf.output(model, given) - wanted).abs().max() > 1e-3, "the window hides something"


NAMES = ["linear", "longformer(window=6)", "big_bird(block=4)", "strided(stride=3)", "sinkhorn(block=4)"]


@pytest.mark.parametrize("family", ["gpt2", "llama", "whisper"])
@pytest.mark.parametrize("name", ["full", "local(left=4)", *NAMES, "mixed([(local(left=3), 2), (linear, 2)])"])
def test_no_output_depends_on_later_tokens(family, name):
    model, given = hf.FAMILIES[family](), hf.inputs(family)
    model.set_attn_implementation(f"saccade:{name}")
    text = "decoder_input_ids" if family == "whisper" else "input_ids"
    before = hf.output(model, given)[:, :11]
    changed = given[text].clone()
    changed[:, 11:] = hf.WORDS - 1 - changed[:, 11:]
    close(hf.output(model, {**given, text: changed})[:, :11], before, 1e-9)
    close(hf.output(model, {**given, text: changed[:, :14]})[:, :11], before, 1e-9)


@pytest.mark.parametrize("name", ["full", "local(left=4)", *NAMES])
def test_no_output_of_an_encoder_depends_on_padding(name):
    """Neither on what stands there, nor on how much of it there is."""
    model, given = hf.bert(), hf.inputs("bert", padded=True)
    model.set_attn_implementation(f"saccade:{name}")
    before = hf.output(model, given)
    hidden = given["attention_mask"] == 0
    other = given["input_ids"].masked_fill(hidden, 1)
    close(hf.output(model, {**given, "input_ids": other}), before, 1e-9)
    longer = {key: torch.nn.functional.pad(x, (0, 7)) for key, x in given.items()}
    close(hf.output(model, longer), before, 1e-9)


def test_queries_that_a_model_scales_itself_are_not_scaled_twice():
    """Whisper multiplies its queries and says 1.0; a mechanism without a softmax gets the queries it expects."""
    model = hf.whisper()
    seen = []
    attention = model.model.encoder.layers[0].self_attn
    attention.q_proj.register_forward_hook(lambda module, args, out: seen.append(out))
    model.set_attn_implementation("saccade:linear")
    out = model.model.encoder(hf.inputs("whisper")["input_features"]).last_hidden_state
    assert out.isfinite().all()
    from saccade.attention import MECHANISMS
    from saccade.integrations.transformers.attention import saccade_attention

    q, k, v = hf.numbers(3, 1, 2, 5, 4)
    layer = MECHANISMS["linear"]().build(2, 4)
    for scaled, scaling in ((q / 2, 1.0), (q, 0.5), (q, None)):
        out, _ = saccade_attention(MECHANISMS["linear"](), attention, scaled, k, v, None, scaling=scaling)
        close(out.transpose(1, 2), layer(q, k, v), 1e-12)


def test_dropout_of_weights_is_done_where_there_is_a_softmax_and_refused_elsewhere():
    model, given = hf.gpt2(attn_pdrop=0.5).train(), hf.inputs("gpt2")
    model.set_attn_implementation("saccade:full")
    first, second = hf.output(model, given), hf.output(model, given)
    assert not torch.equal(first, second)
    model.set_attn_implementation("saccade:linear")
    with pytest.raises(ValueError, match="dropout of attention must be 0 in the model's configuration, as linear"):
        model(**given)
    assert hf.output(model.eval(), given).isfinite().all()


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "vit"])
def test_attentions_are_the_weights(family):
    model, given = hf.FAMILIES[family](), hf.inputs(family, masked(True, family))
    hf.hold_against(model, lambda q, k: (k >= q - 4) & (k <= q + 2))
    wanted = model(**given, output_attentions=True).attentions
    model.set_attn_implementation("saccade:local(left=4, right=2)")
    actual = model(**given, output_attentions=True).attentions
    assert len(actual) == len(wanted) == hf.LAYERS
    for mine, theirs in zip(actual, wanted, strict=True):
        close(mine, theirs)
    assert not model(**given).get("attentions")


def test_attentions_of_whisper_are_those_of_all_three_kinds():
    model, given = hf.whisper(), hf.inputs("whisper")
    model.set_attn_implementation("eager")
    wanted = model(**given, output_attentions=True)
    model.set_attn_implementation("saccade:full")
    actual = model(**given, output_attentions=True)
    for kind in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
        for mine, theirs in zip(actual[kind], wanted[kind], strict=True):
            close(mine, theirs)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("name", ["full", "local(left=4)", "linear"])
def test_autocast_casts_as_theirs_does(family, name):
    """Rotary embeddings give queries and keys of 32 bits next to values of 16."""
    model, text = hf.FAMILIES[family]().float(), hf.tokens()
    outputs = {}
    for kind in ("sdpa", f"saccade:{name}"):
        model.set_attn_implementation(kind)
        exact = model(text).logits
        with torch.autocast("cpu", torch.bfloat16):
            outputs[kind] = model(text).logits
        outputs[kind].float().sum().backward()
        outputs[kind + " error"] = (outputs[kind] - exact).abs().mean() / exact.abs().mean()
    assert outputs[f"saccade:{name} error"] < 2 * outputs["sdpa error"] + 0.01
    seen = []
    layer = model.get_submodule(
        "model.layers.0.self_attn.o_proj" if family == "llama" else "transformer.h.0.attn.c_proj"
    )
    layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(text)
    assert seen == [torch.bfloat16]


def test_export_is_refused():
    model = hf.llama()
    model.set_attn_implementation("saccade:full")
    with pytest.raises(ValueError, match="attn_implementation must be 'sdpa' or 'eager' to export a model"):
        torch.export.export(model, (hf.tokens(),), {"use_cache": False}, strict=False)


def test_training_by_checkpoints_gives_the_same_gradients():
    model, given = hf.llama().train(), hf.inputs("llama", padded=True)
    model.set_attn_implementation("saccade:local(left=4)")
    given["use_cache"] = False
    _, wanted = hf.gradients(model, given)
    model.activation_checkpointing_enable()
    _, actual = hf.gradients(model, given)
    for name, gradient in wanted.items():
        close(actual[name], gradient)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_decoder_that_asks_an_encoder_does_so_densely(family, caplog):
    """A window has no place between two sequences; what has none of its own does."""
    model = hf.FAMILIES[family](add_cross_attention=True, is_decoder=True)
    mask = torch.arange(9) < torch.tensor([[9], [4]])
    encoded = {"encoder_hidden_states": hf.numbers(2, 9, hf.WIDTH), "encoder_attention_mask": mask.long()}
    given = {**hf.inputs(family), **encoded}
    outputs = {}
    for name in ("sdpa", "saccade:full", "saccade:local(left=64)", "saccade:local(left=2)", "saccade:linear"):
        model.set_attn_implementation(name)
        outputs[name] = hf.output(model, given)
    close(outputs["saccade:full"], outputs["sdpa"])
    close(outputs["saccade:local(left=64)"], outputs["sdpa"])
    assert "joins two sequences, which local(left=64) does not: it stays dense softmax attention" in caplog.text
    assert "which linear" not in caplog.text
    changed = {**given, "encoder_hidden_states": encoded["encoder_hidden_states"].masked_fill(~mask[..., None], 9.0)}
    for name in ("saccade:local(left=2)", "saccade:linear"):
        model.set_attn_implementation(name)
        close(hf.output(model, changed), outputs[name])

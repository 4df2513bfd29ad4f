"""Mask functions: each kind of transformers is honoured pair by pair, or refused by name; nothing is dropped."""

import pytest
import torch
from torch import nn

pytest.importorskip("transformers", reason="needs the extra: pip install 'saccade[hf]'")

import hf_models as hf
from transformers import MistralConfig, MistralForCausalLM
from transformers import masking_utils as kinds

from saccade.attention import to_mechanism
from saccade.integrations.transformers.attention import saccade_attention
from saccade.integrations.transformers.mask import Mask, saccade_mask

N = 12
IDS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2], [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]])
PLACES = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4]])
IMAGES = torch.tensor([[-1, 0, 0, 0, -1, -1, 1, 1, 1, 1, -1, -1], [-1] * 6 + [0] * 6])
PADDING = torch.tensor([0, 3])
LEFT = torch.arange(N) >= PADDING[:, None]
HOLES = torch.tensor([[1] * N, [1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0]]).bool()

FUNCTIONS = {
    "causal": kinds.causal_mask_function,
    "bidirectional": kinds.bidirectional_mask_function,
    "window back": kinds.sliding_window_causal_mask_function(3),
    "window": kinds.sliding_window_bidirectional_mask_function(3),
    "chunks": kinds.chunked_causal_mask_function(5, torch.zeros(2, dtype=torch.long)),
    "chunks behind padding": kinds.chunked_causal_mask_function(5, PADDING),
    "packed": kinds.packed_sequence_compatibility_function(kinds.causal_mask_function, PLACES, IDS),
    "packed window": kinds.packed_sequence_compatibility_function(
        kinds.sliding_window_causal_mask_function(3), PLACES, IDS
    ),
    "images seen whole": kinds.or_masks(kinds.causal_mask_function, kinds.blockwise_overlay(IMAGES)),
    "images and a window": kinds.or_masks(
        kinds.sliding_window_causal_mask_function(4), kinds.blockwise_overlay(IMAGES)
    ),
    "both": kinds.and_masks(kinds.causal_mask_function, kinds.and_masks(kinds.sliding_window_overlay(4))),
}
CALLS = {
    "whole": {"q_length": N, "kv_length": N},
    "padded": {"q_length": N, "kv_length": N, "attention_mask": HOLES},
    "padded on the left": {"q_length": N, "kv_length": N, "attention_mask": LEFT},
    "a few more": {"q_length": 3, "kv_length": N, "q_offset": N - 3, "attention_mask": LEFT},
    "one more": {"q_length": 1, "kv_length": N, "q_offset": N - 1},
    "unwritten keys": {"q_length": 2, "kv_length": N, "q_offset": torch.tensor(4), "attention_mask": LEFT[:, :6]},
    "keys forgotten": {"q_length": 2, "kv_length": 7, "q_offset": 10, "kv_offset": 5, "attention_mask": LEFT},
}


class Module(nn.Module):
    """What an attention function may know of its module."""

    is_causal = True


def three(n_q, n_k, heads=2):
    q, k, v = hf.numbers(3, 2, heads, N, 4)
    return q[:, :, :n_q], k[:, :, :n_k], v[:, :, :n_k]


def attended(mechanism, call, function, **options):
    q, k, v = three(call["q_length"], call["kv_length"])
    mask = saccade_mask(batch_size=2, mask_function=function, dtype=torch.float32, **call)
    out, _ = saccade_attention(to_mechanism(mechanism), Module().eval(), q, k, v, mask, scaling=0.5, **options)
    return out


def wanted(call, function, sees=lambda q, k: torch.ones((), dtype=torch.bool)):
    """From the array that transformers itself makes, and a further rule."""
    q, k, v = three(call["q_length"], call["kv_length"])
    seen = hf.whole_mask(batch_size=2, mask_function=function, **call)
    places = torch.arange(call["q_length"])[:, None] + call.get("q_offset", 0)
    keys = torch.arange(call["kv_length"]) + call.get("kv_offset", 0)
    seen = seen & sees(places, keys)
    weights = (q @ k.mT / 2).masked_fill(~seen, -1e300).softmax(-1) * seen
    return (weights @ v).transpose(1, 2)


def made(name, call):
    """Whether transformers makes such a mask: packing of whole calls only, windows alone for caches that forget."""
    whole = CALLS[call]["q_length"] == N
    return (whole or not name.startswith("packed")) and (
        call != "keys forgotten" or not name.startswith(("chunks", "images"))
    )


MADE = [(name, call) for name in FUNCTIONS for call in CALLS if made(name, call)]


@pytest.mark.parametrize(("name", "call"), MADE)
def test_every_kind_is_honoured_by_a_softmax(name, call):
    function, call = FUNCTIONS[name], CALLS[call]
    torch.testing.assert_close(attended("full", call, function), wanted(call, function), rtol=0, atol=1e-12)
    window = wanted(call, function, lambda q, k: (k >= q - 2) & (k <= q + 1))
    actual = attended("local(left=2, right=1)", call, function)
    torch.testing.assert_close(actual, window, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "call"), [(name, call) for name, call in MADE if call != "keys forgotten"])
def test_a_mechanism_without_a_softmax_honours_causality_and_padding_and_refuses_the_rest(name, call):
    function, call = FUNCTIONS[name], CALLS[call]
    if name in ("causal", "bidirectional"):
        q, k, v = three(call["q_length"], call["kv_length"])
        real = call.get("attention_mask", torch.ones(2, N, dtype=torch.bool))
        real = nn.functional.pad(real, (0, N - real.shape[1]))
        start, causal = int(call.get("q_offset", 0)), name == "causal"
        layer = to_mechanism("linear").build(2, 4)
        out = layer(q, k, v, key_mask=real, causal=causal, q_start=start if causal else 0)
        torch.testing.assert_close(attended("linear", call, function), out.transpose(1, 2), rtol=0, atol=1e-12)
        return
    with pytest.raises(ValueError, match=r"mask function must be causal or bidirectional, with any padding, as linear"):
        attended("linear", call, function)


def test_a_window_that_hides_nothing_is_none():
    call = CALLS["padded"]
    for function, whole in (
        (kinds.sliding_window_causal_mask_function(N), kinds.causal_mask_function),
        (kinds.sliding_window_bidirectional_mask_function(N - 1), kinds.bidirectional_mask_function),
        (kinds.chunked_causal_mask_function(N, torch.zeros(2, dtype=torch.long)), kinds.causal_mask_function),
        (kinds.and_masks(kinds.packed_sequence_mask_function(IDS * 0)), kinds.bidirectional_mask_function),
    ):
        assert torch.equal(attended("linear", call, function), attended("linear", call, whole))
    for function in (
        kinds.sliding_window_causal_mask_function(N - 1),
        kinds.sliding_window_bidirectional_mask_function(N - 2),
        kinds.chunked_causal_mask_function(N - 1, torch.zeros(2, dtype=torch.long)),
    ):
        with pytest.raises(ValueError, match="mask function must be causal or bidirectional"):
            attended("linear", call, function)


def of_mine(batch_idx, head_idx, q_idx, kv_idx):
    return kv_idx % 2 == 0


@pytest.mark.parametrize(
    "function",
    [
        of_mine,
        lambda b, h, q, k: k <= q,
        kinds.and_masks(kinds.causal_mask_function, of_mine),
        kinds.or_masks(kinds.causal_mask_function, of_mine),
        kinds.add_offsets_to_mask_function(kinds.causal_mask_function, 1, 0),
        kinds.remap_positions_for_packed_sequence(kinds.causal_mask_function, PLACES),
        torch.add,
    ],
    ids=["own", "lambda", "and own", "or own", "offsets", "remapped alone", "no Python"],
)
def test_a_function_of_somebody_else_is_refused_by_name(function):
    with pytest.raises(
        ValueError, match=r"mask function must be causal, bidirectional, a sliding window, .*, got '"
    ) as e:
        attended("full", CALLS["whole"], function)
    assert any(part in str(e.value) for part in ("of_mine", "lambda", "inner_mask", "add"))


def test_positions_within_documents_are_read_only_where_distances_count():
    chunks = kinds.chunked_causal_mask_function(5, torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="which counts from the start of each document"):
        attended("full", CALLS["whole"], kinds.packed_sequence_compatibility_function(chunks, PLACES, IDS))
    packed = kinds.packed_sequence_compatibility_function(kinds.causal_mask_function, PLACES * 2, IDS)
    with pytest.raises(ValueError, match="documents whose positions do not count up one by one"):
        attended("full", CALLS["whole"], packed)


def test_keys_that_are_gone_are_refused_where_places_count():
    call, function = CALLS["keys forgotten"], FUNCTIONS["window back"]
    with pytest.raises(ValueError, match=r"cache must be one that keeps all keys, as in longformer"):
        attended("longformer(window=4)", call, function)
    with pytest.raises(ValueError, match="cache must be one that keeps all keys, as in linear"):
        attended("linear", call, kinds.causal_mask_function)


def test_a_mask_of_ours_is_handed_on_and_looked_at():
    mask = saccade_mask(batch_size=2, mask_function=kinds.causal_mask_function, **CALLS["padded"])
    assert isinstance(mask, Mask)
    assert mask.shape == mask.size() == (2, 1, N, N)
    assert (mask.ndim, mask.dim(), mask.dtype, mask.is_floating_point()) == (4, 4, torch.bool, False)
    for same in (mask.contiguous(), mask.detach(), mask[:, :, :, :N], mask[:, :, :N]):
        assert same is mask
    moved = mask.to("meta", non_blocking=True)
    assert isinstance(moved, Mask)
    assert moved.device.type == moved.asked.key_mask.device.type == "meta"


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (lambda mask, scores: scores + mask, "add"),
        (lambda mask, scores: mask + scores, "add"),
        (lambda mask, scores: scores.masked_fill(mask, -1e9), "masked_fill"),
        (lambda mask, scores: torch.where(mask, scores, 0.0), "where"),
        (lambda mask, scores: (1.0 - mask) * -1e9, "rsub"),
        (lambda mask, scores: mask[:, :, :, 1:], "__getitem__"),
        (lambda mask, scores: mask[:, 0], "__getitem__"),
        (lambda mask, scores: mask[[1, 0]], "__getitem__"),
        (lambda mask, scores: ~mask, "invert"),
        (lambda mask, scores: mask.all(), "all"),
        (lambda mask, scores: mask.mT, "mT"),
        (lambda mask, scores: mask.float(), "float"),
        (lambda mask, scores: torch.nn.functional.scaled_dot_product_attention(scores, scores, scores, mask), "scaled"),
        (lambda mask, scores: mask.tolist(), "tolist"),
    ],
)
def test_a_mask_of_ours_that_a_model_computes_with_is_refused_by_name(use, name):
    mask = saccade_mask(batch_size=2, mask_function=kinds.causal_mask_function, **CALLS["padded"])
    with pytest.raises(ValueError, match=f"attention mask must be handed on .*the model itself uses in .*{name}"):
        use(mask, torch.zeros(2, 3, N, N))


def test_a_mask_in_which_nobody_sees_anything_is_refused():
    q, k, v = three(N, N)
    with pytest.raises(ValueError, match="got 'a mask in which nobody sees anything'"):
        saccade_attention(to_mechanism("full"), Module().eval(), q, k, v, torch.zeros(2, 1, N, N, dtype=torch.bool))


def test_a_mask_of_three_axes_is_refused():
    model = hf.bert()
    model.set_attn_implementation("saccade:full")
    with pytest.raises(
        ValueError, match=r"attention_mask must be \[b n\] or \[b 1 q k\], got 'of shape \(2, 19, 19\)'"
    ):
        model(hf.tokens(), attention_mask=torch.ones(2, 19, 19))


def given_mask(mask, mechanism="linear", causal=True, n_q=N):
    module = Module().eval()
    module.is_causal = causal
    q, k, v = three(n_q, mask.shape[-1])
    return saccade_attention(to_mechanism(mechanism), module, q, k, v, mask)[0]


@pytest.mark.parametrize("kind", ["bool", "least", "inf"])
def test_a_whole_mask_is_taken_where_it_says_causal_or_bidirectional_and_padding(kind):
    q, k, v = three(N, N)
    layer = to_mechanism("linear").build(2, 4)
    for causal in (True, False):
        whole = torch.ones(N, N, dtype=torch.bool)
        seen = (whole.tril() if causal else whole) & HOLES[:, None, None]
        hidden = torch.tensor(-torch.inf if kind == "inf" else torch.finfo(torch.float64).min, dtype=torch.float64)
        mask = seen if kind == "bool" else torch.where(seen, 0.0, hidden)
        out = layer(q, k, v, key_mask=HOLES, causal=causal).transpose(1, 2)
        for module_is_causal in (True, False):
            torch.testing.assert_close(given_mask(mask, causal=module_is_causal), out, rtol=0, atol=1e-12)


def test_one_query_under_a_whole_mask_stands_at_the_end():
    mask = torch.ones(2, 1, 1, N, dtype=torch.bool)
    _, k, v = three(1, N)
    q = three(1, N)[0]
    layer = to_mechanism("local(left=2)").build(2, 4)
    out = layer(q, k, v, causal=True, q_start=N - 1).transpose(1, 2)
    torch.testing.assert_close(given_mask(mask, "local(left=2)", n_q=1), out, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (torch.ones(2, 1, N, N).tril().roll(1, 3).bool(), "got 'another mask'"),
        (torch.randn(2, 1, N, N), "got 'a mask that adds to the scores'"),
        (torch.ones(2, 1, N, N, dtype=torch.long), "attention_mask must be of booleans or to be added, .*torch.int64"),
        (torch.ones(2, N, dtype=torch.bool), r"got 'a mask of shape \(2, 12\)'"),
        (torch.ones(2, 2, N, N, dtype=torch.bool), r"got 'a mask of shape \(2, 2, 12, 12\)'"),
    ],
    ids=["shifted", "bias", "integers", "2-D", "per head"],
)
def test_any_other_mask_is_refused(mask, said):
    with pytest.raises(ValueError, match=said):
        given_mask(mask)


def test_no_mask_means_what_the_module_says_and_is_refused_where_that_is_not_enough():
    linear = to_mechanism("linear")
    layer, (q, k, v) = linear.build(2, 4), three(N, N)
    for causal in (True, False):
        module = Module().eval()
        module.is_causal = causal
        out, _ = saccade_attention(linear, module, q, k, v, None)
        torch.testing.assert_close(out.transpose(1, 2), layer(q, k, v, causal=causal), rtol=0, atol=1e-12)
        out, _ = saccade_attention(linear, module, q, k, v, None, is_causal=not causal)
        torch.testing.assert_close(out.transpose(1, 2), layer(q, k, v, causal=not causal), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="attention_mask must be made by the model for 3 queries and 12 keys"):
        saccade_attention(linear, Module().eval(), q[:, :, :3], k, v, None)


@pytest.mark.parametrize("name", ["position_bias", "s_aux", "sinks", "softcap", "head_mask", "cache", "of_mine"])
def test_keywords_that_change_attention_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be left out, as saccade attention does not do it"):
        attended("full", CALLS["whole"], kinds.causal_mask_function, **{name: torch.ones(1)})
    attended("full", CALLS["whole"], kinds.causal_mask_function, **{name: None})


def test_packed_lengths_are_refused_where_the_mask_does_not_have_them():
    lengths = {"cu_seq_lens_q": torch.tensor([0, 5, 12]), "cu_seq_lens_k": torch.tensor([0, 5, 12])}
    with pytest.raises(ValueError, match="cu_seq_lens_q must be left out, or come with position_ids"):
        attended("full", CALLS["whole"], kinds.causal_mask_function, **lengths)
    attended("full", CALLS["whole"], FUNCTIONS["packed"], **lengths)
    with pytest.raises(ValueError, match="seq_idx must be left out, or come with position_ids"):
        attended("full", CALLS["whole"], kinds.causal_mask_function, seq_idx=torch.zeros(1))


def test_a_window_without_a_mask_is_refused():
    q, k, v = three(N, N)
    with pytest.raises(ValueError, match="sliding_window must be in the mask of the model"):
        saccade_attention(to_mechanism("full"), Module().eval(), q, k, v, None, sliding_window=4)


def mistral():
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
    more = {"num_hidden_layers": 2, "sliding_window": 5, "initializer_range": hf.SPREAD, "max_position_embeddings": 64}
    ids = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
    return hf.built(MistralForCausalLM, MistralConfig(vocab_size=hf.WORDS, **sizes, **more, **ids))


@pytest.mark.parametrize("name", ["full", "local(left=3)"])
def test_a_model_with_a_window_and_a_cache_that_forgets(name):
    model, text = mistral(), hf.tokens(9)
    greedy = {"max_new_tokens": 8, "do_sample": False}
    model.set_attn_implementation("sdpa")
    theirs = model.generate(text, **greedy)
    model.set_attn_implementation(f"saccade:{name}")
    wanted = model.generate(text, **greedy, use_cache=False)
    assert torch.equal(model.generate(text, **greedy), wanted)
    assert torch.equal(theirs, wanted) == (name == "full")
    assert model(text[:, :4]).logits.isfinite().all()


def test_a_window_is_refused_by_a_mechanism_without_a_softmax_as_soon_as_it_hides_something():
    model = mistral()
    model.set_attn_implementation("saccade:linear")
    assert model(hf.tokens(5)).logits.isfinite().all()
    with pytest.raises(ValueError, match="mask function must be causal or bidirectional"):
        model(hf.tokens(6))


def test_packed_documents_do_not_see_each_other():
    model = hf.llama()
    model.set_attn_implementation("saccade:local(left=4)")
    text, places = hf.tokens(10, batch=1), torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5]])
    packed = model(text, position_ids=places, use_cache=False).logits
    alone = [model(part, use_cache=False).logits for part in text.split((4, 6), 1)]
    torch.testing.assert_close(packed, torch.cat(alone, 1), rtol=0, atol=1e-9)

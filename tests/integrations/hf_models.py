"""Five families of transformers models, tiny and with random weights, and an attention to hold ours against."""

from typing import NamedTuple

import torch
from torch import nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
    WhisperConfig,
    WhisperForConditionalGeneration,
)
from transformers.masking_utils import sdpa_mask

WIDTH, HEADS, LAYERS, WORDS = 32, 4, 2, 61
SPREAD = 0.25
"""Of the random weights: wide enough that attention is not nearly uniform."""


def bert(**more):
    options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": SPREAD, **more}
    sizes = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "intermediate_size": 48}
    return built(BertModel, BertConfig(vocab_size=WORDS, max_position_embeddings=64, **sizes, **options))


def gpt2(**more):
    options = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "initializer_range": SPREAD, **more}
    sizes = {"n_embd": WIDTH, "n_head": HEADS, "n_layer": LAYERS, "n_positions": 64}
    ids = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
    return built(GPT2LMHeadModel, GPT2Config(vocab_size=WORDS, **sizes, **ids, **options))


def llama(**more):
    sizes = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "intermediate_size": 48}
    options = {"num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": SPREAD, **more}
    ids = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
    return built(LlamaForCausalLM, LlamaConfig(vocab_size=WORDS, **sizes, **options, **ids))


def vit(**more):
    sizes = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "intermediate_size": 48}
    options = {"image_size": 24, "patch_size": 4, "initializer_range": SPREAD, **more}
    return built(ViTForImageClassification, ViTConfig(**sizes, **options))


def whisper(**more):
    sides = ("encoder", "decoder")
    sizes = {f"{side}_{name}": n for side in sides for name, n in (("layers", LAYERS), ("ffn_dim", 48))}
    heads = {f"{side}_attention_heads": HEADS for side in sides}
    lengths = {"max_source_positions": 20, "max_target_positions": 40, "num_mel_bins": 8}
    ids = {"decoder_start_token_id": 1, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
    options = {"dropout": 0.0, "init_std": SPREAD, "begin_suppress_tokens": None, **more}
    config = WhisperConfig(vocab_size=WORDS, d_model=WIDTH, **sizes, **heads, **lengths, **ids, **options)
    return built(WhisperForConditionalGeneration, config)


def built(kind, config):
    torch.manual_seed(5)
    model = kind(config).double().eval()
    model.generation_config = getattr(model, "generation_config", None)
    return model


FAMILIES = {"bert": bert, "gpt2": gpt2, "llama": llama, "vit": vit, "whisper": whisper}
DECODERS = {"gpt2": gpt2, "llama": llama, "whisper": whisper}


def tokens(n=19, batch=2):
    return torch.randint(2, WORDS, (batch, n), generator=torch.Generator().manual_seed(3))


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def inputs(family, padded=False):
    """What a model of a family is called with, and which rows of its output are real."""
    if family == "vit":
        return {"pixel_values": numbers(2, 3, 24, 24)}
    given = {"input_ids": tokens()}
    if family == "whisper":
        given = {"input_features": numbers(2, 8, 40), "decoder_input_ids": tokens()}
    if padded:
        mask = torch.arange(19) < torch.tensor([[19], [12]])
        given["decoder_attention_mask" if family == "whisper" else "attention_mask"] = mask.long()
    return given


def output(model, given):
    """The last numbers of the model: hidden states or logits, of real tokens only."""
    out = model(**given)
    out = out.logits if hasattr(out, "logits") else out.last_hidden_state
    mask = given.get("attention_mask", given.get("decoder_attention_mask"))
    return out if mask is None or mask.ndim > 2 else out[mask.bool()]


def gradients(model, given):
    """The output, and the gradient of its squares for every weight."""
    model.zero_grad()
    out = output(model, given)
    out.square().mean().backward()
    return out.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


class Oracle(NamedTuple):
    """Who sees whom beyond what the model asks, in self-attention: a function of the two positions."""

    sees: object

    def __call__(self, module, query, key, value, attention_mask, scaling=None, dropout=0.0, **_):
        keys, values = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
        scores = query @ keys.mT * scaling
        n_q, n_k = scores.shape[-2:]
        seen = torch.ones(n_q, n_k, dtype=torch.bool) if attention_mask is None else attention_mask
        cross = "encoder_attn" in getattr(module, "role", "")
        if not cross:
            q, k = torch.arange(n_q)[:, None] + n_k - n_q, torch.arange(n_k)
            seen = seen & self.sees(q, k)
        weights = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(~seen, 0)
        return (weights @ values).transpose(1, 2).contiguous(), weights


def whole_mask(*_, **options):
    """Every mask as an array."""
    skips = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(*_, **{**options, **skips})


def hold_against(model, sees):
    """Let a model attend by the oracle."""
    AttentionInterface.register("oracle", Oracle(sees))
    AttentionMaskInterface.register("oracle", whole_mask)
    for name, module in model.named_modules():
        if isinstance(module, nn.Module) and name.endswith("encoder_attn"):
            module.role = name
    model.set_attn_implementation("oracle")

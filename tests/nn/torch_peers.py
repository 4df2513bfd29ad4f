"""torch's own Transformer with the weights of ours."""

import torch
from torch import nn


def attention_pairs(ours, theirs):
    """Which of our tensors, one below the other, are which of torch's."""
    projections = [ours.projections[name] for name in ("q", "k", "v")]
    yield [each.weight for each in projections], theirs.in_proj_weight
    yield [each.bias for each in projections], theirs.in_proj_bias
    yield from same_pairs(ours.output, theirs.out_proj)


def same_pairs(ours, theirs):
    yield [ours.weight], theirs.weight
    yield [ours.bias], theirs.bias


def layer_pairs(ours, theirs):
    yield from attention_pairs(ours.attention, theirs.self_attn)
    norms = [ours.attention_norm, ours.feed_forward_norm]
    if hasattr(ours, "cross"):
        yield from attention_pairs(ours.cross, theirs.multihead_attn)
        norms.insert(1, ours.cross_norm)
    for number, norm in enumerate(norms, 1):
        yield from same_pairs(norm, getattr(theirs, f"norm{number}"))
    yield from same_pairs(ours.feed_forward[0], theirs.linear1)
    yield from same_pairs(ours.feed_forward[2], theirs.linear2)


def stack_pairs(ours, theirs):
    for one, other in zip(ours.layers, theirs.layers, strict=True):
        yield from layer_pairs(one, other)
    if theirs.norm is not None:
        yield from same_pairs(ours.norm, theirs.norm)


def transformer_pairs(ours, theirs):
    yield from stack_pairs(ours.encoder, theirs.encoder)
    yield from stack_pairs(ours.decoder, theirs.decoder)


def copied(ours, theirs, pairs):
    """Theirs, with the weights of ours: every one of them."""
    left = {id(weight) for weight in theirs.parameters()}
    with torch.no_grad():
        for mine, other in pairs(ours, theirs):
            other.copy_(torch.cat(mine))
            left.remove(id(other))
    assert not left
    return theirs


def torch_encoder(ours, heads, hidden, norm, activation):
    width = ours.width
    options = {"dropout": 0.3, "activation": activation, "batch_first": True, "norm_first": norm == "pre"}
    layer = nn.TransformerEncoderLayer(width, heads, hidden, **options)
    final = nn.LayerNorm(width) if norm == "pre" else None
    theirs = nn.TransformerEncoder(layer, len(ours.layers), final, enable_nested_tensor=False).double().eval()
    return copied(ours, theirs, stack_pairs)


def torch_decoder(ours, heads, hidden, norm, activation):
    width = ours.width
    options = {"dropout": 0.3, "activation": activation, "batch_first": True, "norm_first": norm == "pre"}
    layer = nn.TransformerDecoderLayer(width, heads, hidden, **options)
    final = nn.LayerNorm(width) if norm == "pre" else None
    return copied(ours, nn.TransformerDecoder(layer, len(ours.layers), final).double().eval(), stack_pairs)


def torch_transformer(ours, heads, hidden, norm, activation):
    """Its own parts, as otherwise it puts a norm behind post-norm layers that the paper does not have."""
    encoder = torch_encoder(ours.encoder, heads, hidden, norm, activation)
    decoder = torch_decoder(ours.decoder, heads, hidden, norm, activation)
    sizes = {"d_model": ours.encoder.width, "nhead": heads, "batch_first": True}
    theirs = nn.Transformer(**sizes, custom_encoder=encoder, custom_decoder=decoder).double().eval()
    return copied(ours, theirs, transformer_pairs)  # once more: it has drawn new weights for its parts

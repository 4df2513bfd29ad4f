"""A mechanism of ours at work in a module of transformers: what stands behind `attn_implementation="saccade:..."`.

A module makes queries, keys and values, moves them by their positions, and calls the function that is registered under
the name of its attention. Nothing that it asks for is dropped: it is done as asked, or refused with the reason.
"""

import logging
import math
from functools import lru_cache, reduce
from operator import and_
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers.utils import output_capturing
from transformers.utils.generic import TransformersKwargs

from saccade.attention import AttentionLayer, Mechanism, attend
from saccade.attention.mechanism import arguments
from saccade.attention.mechanisms import MECHANISMS
from saccade.attention.mechanisms._pattern_layer import PatternLayer
from saccade.attention.patterns import Full, Pattern, Segments
from saccade.attention.weights import implied_weights
from saccade.errors import must_be
from saccade.integrations.transformers.cross import is_cross
from saccade.integrations.transformers.mask import Asked, asked_of, refuse_export
from saccade.shapes import Float

LAYER, SPEC = "saccade", "saccade_mechanism"
"""What `replace_attention` adds to a module: the layer, whose parameters the model saves, and its spec."""

DENSE = MECHANISMS["full"]()

HARMLESS = {
    *TransformersKwargs.__annotations__,
    *("use_cache", "cache_position", "return_dict", "position_embeddings", "deterministic", "sliding_window"),
}
"""Keywords that say nothing that the mask and the tensors do not say. `sliding_window` is in the mask already."""

PACKED = ("cu_seq_lens_q", "cu_seq_lens_k", "seq_idx")

log = logging.getLogger(__name__)


class Call(NamedTuple):
    """One call of attention, checked: what is computed, and for what."""

    mechanism: Mechanism
    layer: AttentionLayer
    asked: Asked
    dropout: float


@torch.compiler.disable  # it decides by what it is asked; mechanisms by themselves can be compiled
def saccade_attention(
    mechanism: Mechanism,
    module: nn.Module,
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b g k d"],
    value: Float[Tensor, "b g k e"],
    attention_mask: Tensor | None,
    dropout: int | float = 0.0,
    scaling: int | float | None = None,
    **options: object,
) -> tuple[Float[Tensor, "b q h e"], Float[Tensor, "b h q k"] | None]:
    """What each query takes from the values, and the weights if the model is asked for attentions.

    Args:
        mechanism: the one of the name; that of `replace_attention` goes before it.
        module: the attention module of the model.
        query: queries, moved by their positions.
        key: keys; their heads divide those of the queries.
        value: values.
        attention_mask: of our mask function, or one that somebody made.
        dropout: share of the weights to drop; only where the mechanism is exact.
        scaling: of the scores; `1 / sqrt(d)` if not given.
        options: whatever else the model says.

    Raises:
        ValueError: something that is asked for and that the mechanism, or Saccade, does not do.
    """
    refuse_export()
    query, key, value = (_autocast(x) for x in (query, key, value))
    by_default = getattr(module, "is_causal", True) if options.get("is_causal") is None else options["is_causal"]
    sizes = query.shape[0], query.shape[2], key.shape[2]
    asked = asked_of(attention_mask, bool(by_default), *sizes)
    _refuse(asked, attention_mask, options)
    asked, end = asked.up_to(query.shape[2], key.shape[2])
    key, value = key[:, :, :end], value[:, :, :end]
    mechanism, layer = _chosen(mechanism, module, asked, query, key, value)
    call = Call(mechanism, layer, asked, float(dropout))
    _refuse_unclaimed(call, query.shape[2], end)
    query = _scaled(query, scaling)
    out = _attended(call, query, key, value).transpose(1, 2).contiguous()
    wanted = options.get("output_attentions") or _collected()
    return out, _weights(call, query, key, value, sizes[2]) if wanted else None


def _autocast(x: Tensor) -> Tensor:
    """In the precision of autocast, as scaled_dot_product_attention casts: rotary embeddings may have left it."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind) or x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(kind))


def _refuse(asked: Asked, mask: Tensor | None, options: dict[str, object]) -> None:
    """Refuse keywords that change attention in ways that nobody here knows, such as sinks or a position bias."""
    for name, value in options.items():
        if name not in HARMLESS and value is not None and value is not False:
            raise ValueError(must_be(name, "left out, as saccade attention does not do it", type(value).__name__))
    documents = any(isinstance(pattern, Segments) for pattern in asked.patterns)
    given = [name for name in PACKED if options.get(name) is not None]
    if given and not documents:
        constraint = "left out, or come with position_ids, no attention_mask and no cache, from which packing is read"
        raise ValueError(must_be(given[0], constraint, "packed sequences"))
    if mask is None and options.get("sliding_window") is not None:
        raise ValueError(must_be("sliding_window", "in the mask of the model", "a layer with a window and no mask"))


def _chosen(
    named: Mechanism, module: nn.Module, asked: Asked, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Mechanism, AttentionLayer]:
    """What a module attends by: a layer of its own, or one by name; dense between sequences that share no places."""
    own = getattr(module, LAYER, None)
    if isinstance(own, AttentionLayer):
        return getattr(module, SPEC), own
    if _between_sequences(module, asked, query.shape[2], key.shape[2]) and not crosses(named):
        _say_dense(type(module).__name__, str(named))
        named = DENSE
    number = getattr(module, "layer_idx", None) or 0
    sizes = query.shape[1], query.shape[3], key.shape[1], value.shape[3]
    return named, _built(named, *sizes, number, query.device, module.training)


def crosses(mechanism: Mechanism) -> bool:
    """Whether it is of use between two sequences: it takes them, and no query has a place among the keys."""
    return mechanism.claims.cross and mechanism.claims.unordered


def _between_sequences(module: nn.Module, asked: Asked, queries: int, keys: int) -> bool:
    return is_cross(module) or (not asked.causal and not asked.q_start and queries != keys)


@lru_cache(maxsize=64)
def _say_dense(module: str, mechanism: str) -> None:
    """Once for each kind of module, not in every call."""
    log.warning("%s joins two sequences, which %s does not: it stays dense softmax attention", module, mechanism)


@lru_cache(maxsize=1024)
@torch.inference_mode(False)  # what is kept serves training, too
def _built(
    mechanism: Mechanism,
    heads: int,
    head_dim: int,
    kv_heads: int,
    value_dim: int,
    number: int,
    device: torch.device,
    training: bool,
) -> AttentionLayer:
    """The layer of a mechanism without parameters: alike for all modules of its sizes and number, and never saved."""
    return mechanism.build(heads, head_dim, kv_heads, value_dim, number).to(device).train(training)


def _refuse_unclaimed(call: Call, queries: int, keys: int) -> None:
    """Refuse what the mechanism does not claim, in words of transformers."""
    mechanism, asked, claims = call.mechanism, call.asked, call.mechanism.claims
    exact = isinstance(call.layer, PatternLayer)
    if asked.causal and not claims.causal:
        raise ValueError(must_be("mechanism of a causal layer", "one that can be causal", str(mechanism)))
    if not claims.cross and (asked.q_start or queries != keys):
        constraint = f"without a cache (use_cache=False), as {mechanism} takes queries and keys of one sequence"
        raise ValueError(must_be("call", constraint, f"{queries} queries and {keys} keys"))
    if asked.patterns and not exact:
        allowed = f"causal or bidirectional, with any padding, as {mechanism} is no softmax under a mask"
        raise ValueError(must_be("mask function", allowed, " & ".join(map(repr, asked.patterns))))
    if asked.keys_start and not (exact and _pattern(call).by_distance):
        constraint = f"one that keeps all keys, as in {mechanism} not only distances count"
        raise ValueError(must_be("cache", constraint, f"one without the first {asked.keys_start}"))
    if call.dropout and not exact:
        constraint = f"0 in the model's configuration, as {mechanism} has no weights to drop"
        raise ValueError(must_be("dropout of attention", constraint, call.dropout))
    if not claims.any_mask and asked.key_mask is not None and not bool((asked.key_mask.diff(dim=1) <= 0).all()):
        raise ValueError(must_be("attention_mask", f"padding on the right for {mechanism}", "another mask"))


def _pattern(call: Call) -> Pattern:
    """Who sees whom in a softmax: what the mechanism shows and the model lets pass."""
    layer, asked = call.layer, call.asked
    assert isinstance(layer, PatternLayer)
    whole = layer.pattern.prefix_form() if asked.lets_later_in else layer.pattern
    own = layer.causal_pattern if asked.causal else whole
    return reduce(and_, asked.patterns if own == Full() and asked.patterns else (own, *asked.patterns))


def _scaled(query: Float[Tensor, "b h q d"], scaling: int | float | None) -> Float[Tensor, "b h q d"]:
    """Queries whose scores, divided by the root of their dim, are those of the model."""
    factor = 1.0 if scaling is None else scaling * math.sqrt(query.shape[3])
    return query if math.isclose(factor, 1, rel_tol=1e-9) else query * factor


def _attended(call: Call, query: Tensor, key: Tensor, value: Tensor) -> Float[Tensor, "b h q e"]:
    asked = call.asked
    if isinstance(call.layer, PatternLayer):
        where = {"key_mask": asked.key_mask, "q_start": asked.q_start, "dropout": call.dropout}
        return attend(query, key, value, _pattern(call), **where)
    inputs = _inputs(call, query, key, value)
    where = {"key_mask": asked.key_mask, "causal": asked.causal, "q_start": asked.q_start}
    return call.layer(**arguments(inputs), **where)


def _inputs(call: Call, query: Tensor, key: Tensor, value: Tensor) -> dict[str, Tensor]:
    """What the mechanism names: what it does not read is left out."""
    given = {"q": query, "k": key, "v": value}
    return {name: given[name] for name in call.mechanism.inputs}


def _collected() -> bool:
    """Whether a model further out collects attentions, which not every model says to its layers."""
    return any("attentions" in name for name in output_capturing._active_collector.get() or ())


def _weights(call: Call, query: Tensor, key: Tensor, value: Tensor, keys: int) -> Float[Tensor, "b h q k"]:
    """The weights, before any dropout; 0 for the keys that were left out."""
    layer, asked = call.layer, call.asked
    where = {"key_mask": asked.key_mask, "causal": asked.causal, "q_start": asked.q_start}
    if isinstance(layer, PatternLayer):
        layer = PatternLayer(_pattern(call), key.shape[1], key.shape[3], value.shape[3])
        where["causal"] = False
    found = implied_weights(layer, _inputs(call, query, key, value), **where)
    return nn.functional.pad(found, (0, keys - found.shape[3]))

"""Put a mechanism that has parameters into a model of transformers, and say what was kept of the model.

A module keeps its projections, its positions and its cache: only what looks at whom is another layer, which hangs in
the module and is trained, moved and saved with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from saccade.attention import AttentionLayer, Mechanism, to_mechanism
from saccade.attention.patterns import Pattern
from saccade.errors import must_be
from saccade.integrations.transformers.attention import LAYER, SPEC, crosses
from saccade.integrations.transformers.cross import is_cross, mark_cross
from saccade.integrations.transformers.names import PREFIX

SEPARATE = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"))
"""Names that models give to their projections where each is a module; GPT-2 has them in one, `c_attn`."""

OUTPUTS = ("o_proj", "out_proj", "c_proj")


@dataclass(frozen=True)
class Sizes:
    """What a layer is built for.

    Attributes:
        heads: query heads.
        head_dim: dim of one query, key or value.
        kv_heads: heads of keys and values.
    """

    heads: int
    head_dim: int
    kv_heads: int


@dataclass(frozen=True)
class Replacement:
    """What became of one attention module.

    Attributes:
        module: its name in the model.
        mechanism: what it does now.
        kept: its projections, whose weights are as they were.
        unread: those of them that the mechanism does not read.
        added: parameters of the mechanism, of which the model knew nothing.
    """

    module: str
    mechanism: str
    kept: tuple[str, ...]
    unread: tuple[str, ...]
    added: int


@dataclass(frozen=True)
class Report:
    """What `replace_attention` did; prints as a table.

    Attributes:
        rows: one for each attention module, those that were left dense included.
    """

    rows: tuple[Replacement, ...]

    def __str__(self) -> str:
        cells: list[tuple[str, ...]] = [("module", "mechanism", "kept", "not read", "new parameters")]
        for row in self.rows:
            lists = (", ".join(names) or "-" for names in (row.kept, row.unread))
            cells.append((row.module, row.mechanism, *lists, f"{row.added:,}"))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
        return "\n".join(line.rstrip() for line in lines)


def replace_attention(model: PreTrainedModel, mechanism: str | Mechanism | Pattern, only: str = "") -> Report:
    """Let a model's attention modules attend by a mechanism, with all their weights kept.

    The layer of each module becomes its part `saccade`: its parameters are in the state dict, and
    `saccade.attention.after_step(model)` reaches it. Modules that ask another sequence stay dense unless the mechanism
    crosses sequences and gives no key a place; so do those left out by `only`.

    Args:
        model: of the families BERT, GPT-2, Llama, ViT or Whisper, or one whose modules name their parts as they do.
        mechanism: a name, an expression, a spec or a pattern.
        only: part of the names of the modules to change, such as `"encoder"`; all if not given.

    Raises:
        ValueError: a mechanism that reads more than queries, keys and values, or cannot be causal where a module
            is, or a model in which nothing is found, or which does not let its attention be chosen.
    """
    spec = to_mechanism(mechanism)
    if missing := set(spec.inputs) - {"q", "k", "v"}:
        constraint = "one that reads queries, keys and values, which is all that a model has"
        raise ValueError(must_be("mechanism", constraint, f"{spec}, which reads a {min(missing)}"))
    mark_cross(model)
    found = list(_attention_modules(model))
    chosen = [name for name, module in found if only in name and (crosses(spec) or not is_cross(module))]
    if not chosen:
        raise _nothing_in(model, found, only)
    _refuse_causal(spec, [(name, module) for name, module in found if name in chosen])
    _choose(model)
    first: dict[Sizes, AttentionLayer] = {}
    for number, (name, module) in enumerate(found):
        if name in chosen:
            _attach(module, spec, number, first)
    return Report(tuple(_row(name, module) for name, module in found))


def _nothing_in(model: PreTrainedModel, found: list[tuple[str, nn.Module]], only: str) -> ValueError:
    """That there is nothing to change, and which of the reasons it is."""
    kind = type(model).__name__
    if not found:
        known = "q_proj, k_proj, v_proj; query, key, value; or c_attn"
        return ValueError(must_be("model", f"one with attention modules that have {known}", kind))
    if not any(only in name for name, _ in found):
        constraint = f"part of the name of an attention module of {kind}, such as {found[0][0]!r}"
        return ValueError(must_be("only", constraint, only))
    constraint = "one that crosses sequences and gives no key a place, as these modules ask another sequence"
    return ValueError(must_be("mechanism", constraint, f"another, for the modules with {only!r} in {kind}"))


def _attention_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        fused = hasattr(module, "c_attn")
        if fused or any(all(hasattr(module, part) for part in parts) for parts in SEPARATE):
            yield name, module


def _refuse_causal(spec: Mechanism, modules: list[tuple[str, nn.Module]]) -> None:
    causal = [name for name, module in modules if getattr(module, "is_causal", False)]
    if causal and not spec.claims.causal:
        constraint = f"one that can be causal for {causal[0]} (or leave it out, as with only='encoder')"
        raise ValueError(must_be("mechanism", constraint, str(spec)))


def _choose(model: PreTrainedModel) -> None:
    """Call our attention in every module: dense where nothing else is said, which changes no output."""
    if not (model.config._attn_implementation or "").startswith(PREFIX):
        model.set_attn_implementation(f"{PREFIX}full")
    if not (model.config._attn_implementation or "").startswith(PREFIX):
        raise ValueError(must_be("model", "one whose attn_implementation can be set", type(model).__name__))


def _attach(module: nn.Module, spec: Mechanism, number: int, first: dict[Sizes, AttentionLayer]) -> None:
    """Give a module its layer, on the device and in the precision of its weights."""
    sizes = _sizes(module)
    layer = spec.build(sizes.heads, sizes.head_dim, sizes.kv_heads, layer=number)
    if sizes in first:
        layer.share_with(first[sizes])
    first.setdefault(sizes, layer)
    weight = next(module.parameters())
    module.add_module(LAYER, layer.to(weight.device, weight.dtype).train(module.training))
    setattr(module, SPEC, spec)


def _sizes(module: nn.Module) -> Sizes:
    """Heads and their dim, from what the module says of itself and how wide its projections are."""
    dim = int(getattr(module, "head_dim", 0) or getattr(module, "attention_head_size", 0))
    if hasattr(module, "c_attn"):
        heads = int(getattr(module, "num_heads", 0))
        return Sizes(heads, dim, heads)
    query, key, _ = (getattr(module, name) for name in _projections(module))
    return Sizes(query.out_features // dim, dim, key.out_features // dim)


def _projections(module: nn.Module) -> tuple[str, ...]:
    return next(parts for parts in SEPARATE if all(hasattr(module, part) for part in parts))


def _row(name: str, module: nn.Module) -> Replacement:
    """What stands in a module now."""
    own = getattr(module, LAYER, None)
    fused = hasattr(module, "c_attn")
    projections = tuple(n for n in ("q_attn", "c_attn") if hasattr(module, n)) if fused else _projections(module)
    spec: Mechanism | None = getattr(module, SPEC, None)
    parts = ("the queries of c_attn", "the keys of c_attn") if fused else projections[:2]
    return Replacement(
        module=name,
        mechanism="as before" if spec is None else str(spec),
        kept=projections + tuple(part for part in OUTPUTS if hasattr(module, part)),
        unread=() if spec is None else tuple(n for read, n in zip("qk", parts, strict=True) if read not in spec.inputs),
        added=sum(each.numel() for each in own.parameters()) if isinstance(own, nn.Module) else 0,
    )

"""The names under which transformers finds our attention: `saccade:local`, `saccade:local(left=64)`, and so on.

Source: the registries of transformers, `AttentionInterface` and `AttentionMaskInterface`. A name that is in the first
alone loses its mask, and with it causality; here a name is always in both.
"""

import logging
from collections.abc import Iterator
from functools import partial, wraps
from typing import Any, TypeGuard

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from saccade.attention import MECHANISMS, AttentionLayer, Mechanism, to_mechanism
from saccade.attention.patterns import Pattern
from saccade.errors import must_be
from saccade.integrations.transformers.attention import LAYER, saccade_attention
from saccade.integrations.transformers.cross import mark_cross
from saccade.integrations.transformers.families import refuse_family
from saccade.integrations.transformers.mask import saccade_mask

PREFIX = "saccade:"

log = logging.getLogger(__name__)


def register(mechanism: str | Mechanism | Pattern) -> str:
    """Make a mechanism known to transformers, which otherwise happens when a model first asks for it by its name.

    Args:
        mechanism: a name, an expression such as `"local(left=64)"`, a spec or a pattern.

    Returns:
        The name to give as `attn_implementation`.

    Raises:
        ValueError: an unknown mechanism or option, or one whose layers have something of their own to keep.
    """
    spec = to_mechanism(mechanism)
    if reason := drawback(spec):
        constraint = f"one without parameters, as a name has no place to keep them ({reason})"
        raise ValueError(must_be("mechanism", f"{constraint}: use replace_attention(model, ...)", str(spec)))
    name = PREFIX + (mechanism if isinstance(mechanism, str) else repr(spec))
    AttentionInterface.register(name, partial(saccade_attention, spec))
    AttentionMaskInterface.register(name, saccade_mask)
    return name


def register_all() -> None:
    """Register every mechanism of THE LIST that needs no parameters, with its defaults."""
    for name, kind in MECHANISMS.items():
        if not drawback(kind()):
            register(name)


def register_what_is_asked_for() -> None:
    """Let a model that is told a name of ours register it before transformers looks it up: so options need no call.

    A wrong name or option raises the error that says what is wrong, and so does a model that would ignore the name.
    Models check names here and nowhere in a forward pass, which compilers trace: a registry that knows names by itself
    would stop them.
    """
    theirs = PreTrainedModel.get_correct_attn_implementation
    if getattr(theirs, "__module__", None) == __name__:
        return
    made, changed = PreTrainedModel.post_init, PreTrainedModel.set_attn_implementation

    def checked(self: PreTrainedModel, requested_attention: str | None, is_init_check: bool = False) -> str:
        if _ours(requested_attention):
            register(requested_attention.removeprefix(PREFIX))
            refuse_family(type(self), requested_attention)
        return theirs(self, requested_attention, is_init_check)

    @wraps(made)
    def post_init(self: PreTrainedModel) -> None:
        made(self)
        if _ours(self.config._attn_implementation):
            mark_cross(self)

    @wraps(changed)
    def set_attn_implementation(
        self: PreTrainedModel, attn_implementation: str | dict[str, Any], allow_all_kernels: bool = False
    ) -> None:
        for model, name in _told(self, attn_implementation):
            register(name.removeprefix(PREFIX))
            refuse_family(type(model), name)
        _say_what_stays(self, attn_implementation)
        changed(self, attn_implementation, allow_all_kernels)
        mark_cross(self)

    PreTrainedModel.get_correct_attn_implementation = checked
    PreTrainedModel.post_init = post_init
    PreTrainedModel.set_attn_implementation = set_attn_implementation


def _ours(name: object) -> TypeGuard[str]:
    return isinstance(name, str) and name.startswith(PREFIX)


def _say_what_stays(model: PreTrainedModel, wanted: object) -> None:
    """Warn where a name does not change what `replace_attention` did, or takes it out of use."""
    own = [name for name, module in model.named_modules() if isinstance(getattr(module, LAYER, None), AttentionLayer)]
    if own and wanted != model.config._attn_implementation:
        kept = _ours(wanted) or isinstance(wanted, dict)
        what = "keep the mechanism" if kept else "no longer attend by the mechanism"
        log.warning("%d modules (%s, ...) %s that replace_attention gave them", len(own), own[0], what)


def _told(model: PreTrainedModel, wanted: object) -> Iterator[tuple[PreTrainedModel, str]]:
    """The models within one that are told a name of ours; transformers passes over those that cannot follow."""
    if isinstance(wanted, dict):
        for key, part in wanted.items():
            config = model.config if key == "" else getattr(model.config, key, None)
            parts = (m for m in model.modules() if isinstance(m, PreTrainedModel) and m.config is config)
            for each in parts:
                yield from [(each, part)] if key == "" and _ours(part) else _told(each, part)
    elif _ours(wanted):
        yield from ((each, wanted) for each in model.modules() if isinstance(each, PreTrainedModel))


def drawback(mechanism: Mechanism) -> str:
    """Why a mechanism cannot be had by name alone; empty where it can."""
    if missing := set(mechanism.inputs) - {"q", "k", "v"}:
        return f"it reads a {min(missing)} of its own"
    if not {"q", "k"} <= set(mechanism.inputs):
        what = "keys" if "q" in mechanism.inputs else "queries and the keys"
        return f"it does not read the {what}, which the model has learned"
    with torch.device("meta"):
        if any(True for _ in mechanism.build(heads=2, head_dim=4).parameters()):
            return "its layers learn parameters"
    if _redraws(mechanism):
        return "the steps after which it redraws do not reach a name, only redraw=0 does"
    return "training moves what its layers hold" if _moves(mechanism) else ""


def _redraws(mechanism: Mechanism) -> bool:
    """Whether somebody asks for directions that are drawn anew: by default they are those of `redraw=0` here."""
    with torch.device("meta"):
        found = [getattr(layer, "spec", None) for layer in mechanism.build(heads=2, head_dim=4).modules()]
    specs = [spec for spec in found if isinstance(spec, Mechanism) and hasattr(spec, "redraw")]
    return any(getattr(spec, "redraw") not in (0, getattr(type(spec)(), "redraw")) for spec in specs)  # noqa: B009


def _moves(mechanism: Mechanism) -> bool:
    """Whether a forward pass in training notes something, by which a layer moves after the step."""
    layer = mechanism.build(heads=2, head_dim=4).train()
    kinds = [type(each) for each in layer.modules() if isinstance(each, AttentionLayer)]
    if all(kind.after_step is AttentionLayer.after_step for kind in kinds):
        return False
    before = [dict(vars(each)) for each in layer.modules()]
    tokens = torch.linspace(-1, 1, 64).reshape(1, 2, 8, 4)
    with torch.random.fork_rng(devices=[]):
        layer(tokens, tokens, tokens)
    return any(
        old[name] is not vars(each).get(name) for old, each in zip(before, layer.modules(), strict=True) for name in old
    )

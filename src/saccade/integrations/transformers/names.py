"""The names under which transformers finds our attention: `saccade:local`, `saccade:local(left=64)`, and so on.

Source: the registries of transformers, `AttentionInterface` and `AttentionMaskInterface`. A name that is in the first
alone loses its mask, and with it causality; here a name is always in both.
"""

from functools import partial

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from saccade.attention import MECHANISMS, AttentionLayer, Mechanism, to_mechanism
from saccade.attention.patterns import Pattern
from saccade.errors import must_be
from saccade.integrations.transformers.attention import saccade_attention
from saccade.integrations.transformers.mask import saccade_mask

PREFIX = "saccade:"


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

    A wrong name or option raises the error that says what is wrong. Models check names here and nowhere in a forward
    pass, which compilers trace: a registry that knows names by itself would stop them.
    """
    theirs = PreTrainedModel.get_correct_attn_implementation
    if getattr(theirs, "__module__", None) == __name__:
        return

    def checked(self: PreTrainedModel, requested_attention: str | None, is_init_check: bool = False) -> str:
        if requested_attention is not None and requested_attention.startswith(PREFIX):
            register(requested_attention.removeprefix(PREFIX))
        return theirs(self, requested_attention, is_init_check)

    PreTrainedModel.get_correct_attn_implementation = checked


def drawback(mechanism: Mechanism) -> str:
    """Why a mechanism cannot be had by name alone; empty where it can."""
    if missing := set(mechanism.inputs) - {"q", "k", "v"}:
        return f"it reads a {min(missing)} of its own"
    if not {"q", "k"} <= set(mechanism.inputs):
        return "it does not read the keys, which the model has learned"
    with torch.device("meta"):
        if any(True for _ in mechanism.build(heads=2, head_dim=4).parameters()):
            return "its layers learn parameters"
    return "training moves what its layers hold" if _moves(mechanism) else ""


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

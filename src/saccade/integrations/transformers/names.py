"""The names under which transformers finds our attention: `saccade:local`, `saccade:local(left=64)`, and so on.

Source: the registries of transformers, `AttentionInterface` and `AttentionMaskInterface`. A name that is in the first
alone loses its mask, and with it causality; here a name is always in both.
"""

from functools import partial

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from saccade.attention import MECHANISMS, AttentionLayer, Mechanism, to_mechanism
from saccade.attention.patterns import Pattern
from saccade.errors import must_be
from saccade.integrations.transformers.attention import saccade_attention
from saccade.integrations.transformers.mask import saccade_mask

PREFIX = "saccade:"


class _WithOptions(str):
    """A name that stands for every name with options: asked whether it is the wanted one, it registers that.

    transformers looks a wanted name up in its registry only after comparing it with all that are there, so that the
    options need not be known before. A wrong one raises the error that says what is wrong.
    """

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        """Whether it is a name of ours; then it is registered."""
        if isinstance(other, str) and other.startswith(PREFIX):
            register(other.removeprefix(PREFIX))
            return True
        return str.__eq__(self, other)


ANY = _WithOptions(f"{PREFIX}MECHANISM(OPTIONS)")


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
    """Register every mechanism of THE LIST that needs no parameters, with its defaults, and names with options."""
    for name, kind in MECHANISMS.items():
        if not drawback(kind()):
            register(name)
    AttentionInterface.register(ANY, partial(saccade_attention, to_mechanism("full")))
    AttentionMaskInterface.register(ANY, saccade_mask)


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

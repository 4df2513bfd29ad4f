"""Which attention modules of a model ask another sequence, as told by what the model calls them.

A call between two sequences of one length looks like one within a sequence: the same tensors, the same kind of mask.
Some modules say of themselves what they are. Of the others only the name is left that they have in their model, and a
module does not know it, so it is written into the module once the model is made.
"""

import re

from torch import nn

MARK = "saccade_is_cross"

_ACROSS = re.compile(r"cross_?att|encoder_att|enc_?dec_?att|x_attn|_to_(image|token)", re.IGNORECASE)
_WITHIN = re.compile(r"self_?att", re.IGNORECASE)


def mark_cross(model: nn.Module) -> None:
    """Write into each module of a model that attends between sequences, by its name, that it does."""
    for name, module in model.named_modules():
        if name and _named_cross(model, name):
            setattr(module, MARK, True)


def is_cross(module: nn.Module) -> bool:
    """Whether a module asks another sequence, as far as it, or its name in a marked model, says so."""
    says = getattr(module, "is_cross_attention", "Cross" in type(module).__name__)
    decodes = getattr(module, "is_decoder", False) and not getattr(module, "is_causal", True)
    return bool(says or decodes or getattr(module, MARK, False))


def _named_cross(model: nn.Module, name: str) -> bool:
    """Whether the last part of a path that says what it is says so, or a class of cross attention is around it."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if _ACROSS.search(parts[end - 1]):
            return True
        if "CrossAttention" in type(model.get_submodule(".".join(parts[:end]))).__name__:
            return True
        if _WITHIN.search(parts[end - 1]):
            return False
    return False

"""Activation checkpointing (Chen et al. 2016): each layer keeps its input and is computed again in the backward pass.

Memory for L layers falls from all they keep to their L inputs and what one layer keeps; a step takes a third
to half longer. Dropout draws the same again, so gradients are the same bit for bit.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from saccade.attention.record import computed_again
from saccade.nn.stack import ResidualLayer


def recompute(model: nn.Module) -> None:
    """Let every layer of its encoders and decoders be computed again, until `keep`."""
    for layer in model.modules():
        if isinstance(layer, ResidualLayer):
            layer.forward = partial(_checkpointed, layer.forward)


def keep(model: nn.Module) -> None:
    """Undo `recompute`."""
    for layer in model.modules():
        if isinstance(layer, ResidualLayer):
            vars(layer).pop("forward", None)


def _checkpointed(forward: Callable[..., Any], *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=_contexts)


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Of the first computation and of the second."""
    return nullcontext(), computed_again()

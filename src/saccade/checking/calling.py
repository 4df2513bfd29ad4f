"""Call a target as safely as a stranger's code deserves: on copies, from a fixed seed, and look at what comes back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from saccade.checking.draws import Inputs, Shape
from saccade.checking.target import CODE_FAILED, Forward, Target, describe
from saccade.shapes import Tensor

Options = dict[str, Tensor | bool | int | None]


class TargetFailure(Exception):  # noqa: N818 - it is the target's failure, not an error of ours
    """The target raised, or returned what cannot be compared. The message says what was called."""


@dataclass(frozen=True)
class Format:
    """What a target takes and computes in.

    Attributes:
        shape: heads and dims of the inputs.
        dtype: the dtype of the inputs, float64 where the target takes it.
        device: where the target lives.
        single: whether it computes in float32 somewhere, so that differences below its rounding mean nothing.
    """

    shape: Shape
    dtype: torch.dtype
    device: torch.device
    single: bool = False


def prepared(target: Target, form: Format, training: bool) -> Forward:
    """The forward pass, ready to call: in the right dtype and mode, with dropout off and nothing at zero.

    A module is a copy, so what happens here and later never reaches the user's. Parameters that are all zero
    (biases, output projections that start at zero) get small numbers, for a zero hides every leak behind it.
    """
    forward = target.make()
    if not isinstance(forward, nn.Module):
        return forward
    forward.to(form.dtype).train(training)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in forward.parameters():
            if parameter.is_floating_point() and parameter.requires_grad and not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    for module in forward.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            setattr(module, "dropout", 0.0)  # noqa: B010 - torch types its modules' attributes as modules
    return forward


def call(target: Target, forward: Forward, form: Format, inputs: Inputs, options: Options, seed: int = 0) -> Tensor:
    """One call, from a fixed global seed.

    The forward pass gets the tensors themselves: the caller clones what must survive.

    Raises:
        TargetFailure: it raised, or gave no floating tensor of the right dtype and shape.
    """
    words = told(inputs, options)
    out = sheltered(lambda: target.call(forward, inputs, options), form, words, seed)
    return output(out[0] if isinstance(out, tuple | list) and out else out, form, inputs, words)


def sheltered(run: Callable[[], Any], form: Format, words: str, seed: int = 0) -> Any:
    """What a stranger's code returns, run from a fixed global seed.

    Raises:
        TargetFailure: it raised, or called `sys.exit`.
    """
    devices = [form.device] if form.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed: it keeps a stack trace a call for devices that are not there.
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        try:
            return run()
        except CODE_FAILED as error:
            raise TargetFailure(f"{words}: {describe(error)}") from error


def output(out: object, form: Format, inputs: Inputs, words: str) -> Tensor:
    """The same output, if it is one for these inputs.

    Raises:
        TargetFailure: it is no floating tensor of the right dtype and shape.
    """
    wrong = _wrong(out, form, inputs)
    if wrong or not isinstance(out, Tensor):
        raise TargetFailure(f"{words}: returned {wrong}")
    return out


def ready(inputs: Inputs, form: Format) -> Inputs:
    """Fresh copies of the inputs, in the target's dtype and on its device."""
    return tuple(tensor.detach().to(form.device, form.dtype, copy=True) for tensor in inputs)


def told(inputs: Inputs, options: Options) -> str:
    """The call in a few words: `n=63, causal, key_mask`."""
    lengths = {tensor.shape[-2] for tensor in inputs}
    n = f"n={lengths.pop()}" if len(lengths) == 1 else f"n_q={inputs[0].shape[-2]}, n_k={inputs[-1].shape[-2]}"
    words = [n, "causal" if options.get("causal") else "not causal"]
    words += ["key_mask"] if options.get("key_mask") is not None else []
    words += [f"q_start={options['q_start']}"] if options.get("q_start") is not None else []
    return ", ".join(words)


def _wrong(out: object, form: Format, inputs: Inputs) -> str:
    """What is wrong with an output, or nothing."""
    if not isinstance(out, Tensor):
        return f"{type(out).__name__}, not a tensor"
    if out.dtype != form.dtype:
        return f"dtype {out.dtype} for inputs of {form.dtype}"
    q, v = inputs[0], inputs[-1]
    if form.shape.heads:
        wanted = (*q.shape[:3], v.shape[3])
        return "" if out.shape == wanted else f"shape {tuple(out.shape)}, not [b h q e] = {wanted}"
    right = out.ndim == 3 and out.shape[:2] == q.shape[:2]
    return "" if right else f"shape {tuple(out.shape)}, not [b n c] = {tuple(q.shape)}"

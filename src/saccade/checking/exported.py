"""A target as `torch.export` writes it down, with a batch and a length that may vary, and calls of what was written."""

from collections.abc import Callable

import torch
from torch import nn

from saccade.checking.calling import Format, Options, output, sheltered, told
from saccade.checking.draws import Inputs
from saccade.checking.target import Forward, Target
from saccade.shapes import Bool, Tensor

Program = Callable[[Inputs, Options], Tensor]


class _Call(nn.Module):
    """What is exported: a call with its options bound. A function becomes a module by it."""

    def __init__(self, target: Target, forward: Forward, causal: bool) -> None:
        super().__init__()
        self.target, self.given, self.causal = target, forward, causal

    def forward(self, inputs: Inputs, key_mask: Bool[Tensor, "b n"] | None) -> object:
        """The output, or what stands before it in a tuple."""
        out = self.target.call(self.given, inputs, {"key_mask": key_mask, "causal": self.causal})
        return out[0] if isinstance(out, tuple | list) and out else out


def exported(target: Target, forward: Forward, form: Format, inputs: Inputs, options: Options) -> Program:
    """A program that was exported from one call.

    Args:
        target: whose forward pass it is.
        forward: the forward pass, in evaluation mode.
        form: what it takes.
        inputs: of the call.
        options: its `key_mask` and `causal`, which the program is bound to.

    Raises:
        TargetFailure: it cannot be exported so; the program raises it, too, where a length fails.
    """
    vary, mask = torch.export.Dim.DYNAMIC, options["key_mask"]
    shapes = tuple({0: vary, tensor.ndim - 2: vary} for tensor in inputs), None if mask is None else {0: vary, 1: vary}
    call = _Call(target, forward, bool(options["causal"])).eval()

    def export() -> nn.Module:
        from torch._dynamo import config  # torch.export imports it; nobody else should have to

        # What is traced once is not worth keeping: without it, tracing takes a third less time.
        with torch.no_grad(), config.patch(fake_tensor_cache_enabled=False):
            return torch.export.export(call, (inputs, mask), dynamic_shapes=shapes).module()

    program = sheltered(export, form, f"torch.export with a batch and a length that vary, from {told(inputs, options)}")

    def run(inputs: Inputs, options: Options) -> Tensor:
        words = f"exported program, {told(inputs, options)}"
        with torch.no_grad():
            out = sheltered(lambda: program(inputs, options["key_mask"]), form, words)
        return output(out, form, inputs, words)

    return run

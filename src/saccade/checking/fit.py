"""Find by trial what a target accepts: the dtype, the heads and dims, and how exactly it computes.

float64 is tried before float32, and small common sizes before others. Where nothing works, the first format
stays, and every probe then says what the target raised.
"""

from collections.abc import Iterator
from itertools import product

import torch
from torch import nn

from saccade.checking.calling import Format, TargetFailure, call, prepared, ready
from saccade.checking.draws import Inputs, Shape, scaled
from saccade.checking.stream import Stream, cannot_stream
from saccade.checking.target import COMMON_WIDTHS, MASKS, Target

# Unlike any dim that is tried, so that a transposed output shows; a target that cuts blocks may refuse the first.
TRIAL_LENGTHS = (192, 640)
LONG = 1000
"""From this length on an example is tried alone, as probes call it."""
HEADS = (2, 4, 1, 8, 3, 12)
HEAD_DIMS = (8, 16, 32, 64)
WIDTHS = (64, 32, 16, 8, 128, 256, 512, 768)
DTYPES = (torch.float64, torch.float32)
DIRECTIONS = 3


def fit(target: Target, width: int | None, dtype: torch.dtype | None, value_dims: bool, seed: int) -> Format:
    """The first format that the target accepts.

    Args:
        target: what is checked.
        width: the model width or head dim, if the user gave it.
        dtype: the dtype, if the user gave it.
        value_dims: whether values may be given another dim than keys.
        seed: of the inputs.
    """
    device = _device(target)
    shapes = list(_shapes(target, width, value_dims))
    formats = [Format(shape, kind, device) for kind in ((dtype,) if dtype else DTYPES) for shape in shapes]
    for n in TRIAL_LENGTHS:
        accepted = (form for form in formats if accepts(target, form, n, seed))
        if form := _first_that_decodes(target, accepted, seed):
            single = form.dtype != torch.float64 or _rounds_early(target, form, n, seed)
            return Format(form.shape, form.dtype, device, single)
    return Format(shapes[0], formats[0].dtype, device, formats[0].dtype != torch.float64)


def accepts(target: Target, form: Format, n: int, seed: int, causal: bool = False) -> bool:
    """Whether a plain call of this length works; tried on a copy of its own."""
    inputs = form.shape.draw(1 if n >= LONG else 2, n, n, torch.Generator().manual_seed(seed))
    try:
        with torch.no_grad():
            call(target, prepared(target, form, False), form, ready(inputs, form), {"causal": causal})
    except TargetFailure:
        return False
    return True


def uses(target: Target, form: Format, option: str, seed: int) -> bool:
    """Whether the target takes an option that only its `**kwargs` could take, rather than refusing its name."""
    if not target.swallows or option not in MASKS:
        return option in target.options
    n = TRIAL_LENGTHS[0]
    inputs = form.shape.draw(2, n, n, torch.Generator().manual_seed(seed))
    options = {"key_mask": torch.ones(2, n, dtype=torch.bool, device=form.device), "causal": True}
    try:
        call(target, prepared(target, form, False), form, ready(inputs, form), {option: options[option]})
    except TargetFailure as failure:
        return "unexpected keyword argument" not in str(failure)
    return True


def _first_that_decodes(target: Target, accepted: Iterator[Format], seed: int) -> Format | None:
    """The first format in which the target can also take a step, or the first of all if there is none.

    A forward pass may take any number of heads where a decoding state is made for those of its layer.
    """
    first = None
    for form in accepted:
        first = first or form
        if cannot_stream(target.make(), form.shape.names) or _decodes(target, form, seed):
            return form
    return first


def _decodes(target: Target, form: Format, seed: int) -> bool:
    token = form.shape.draw(2, 1, 1, torch.Generator().manual_seed(seed))
    stream = Stream(prepared(target, form, False), form)
    try:
        stream.step(token, stream.start(2))
    except TargetFailure as failure:
        return isinstance(failure.__cause__, NotImplementedError)  # nor in any other format
    return True


def _shapes(target: Target, width: int | None, value_dims: bool) -> Iterator[Shape]:
    if target.on == "x":
        for dim in [width] if width else _widths(target):
            yield Shape(0, dim, dim)
        return
    for dim, heads in product([width] if width else HEAD_DIMS, HEADS):
        if value_dims:
            yield Shape(heads, dim, 5)
        yield Shape(heads, dim, dim)


def _widths(target: Target) -> list[int]:
    """Widths to try: those of the module's own layers, in order of appearance, then common ones."""
    forward = target.make()
    found: list[int] = []
    for module in forward.modules() if isinstance(forward, nn.Module) else ():
        if isinstance(module, nn.Linear):
            found.append(module.in_features)
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            found.append(module.normalized_shape[-1])
        elif isinstance(module, nn.MultiheadAttention):
            found.append(module.embed_dim)
    return list(dict.fromkeys([*found, COMMON_WIDTHS["x"], *WIDTHS]))


def _device(target: Target) -> torch.device:
    forward = target.make()
    tensors = iter(()) if not isinstance(forward, nn.Module) else forward.parameters()
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _rounds_early(target: Target, form: Format, n: int, seed: int) -> bool:
    """Whether float64 inputs are rounded to less on their way through.

    A function that computes in float64 has the same slope over a step of 1e-9 as over one of 1e-6; one that
    rounds to float32 has noise a hundred times as large as the slope over the shorter step, or no slope at all.
    Hashing jumps at some inputs: that spoils one of several directions, and rounding spoils all.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = form.shape.draw(2, n, n, generator)

    def output(at: Inputs) -> torch.Tensor:
        return call(target, prepared(target, form, False), form, ready(at, form), {"causal": False})

    def noisy(direction: Inputs, start: torch.Tensor) -> bool:
        def slope(step: float) -> torch.Tensor:
            moved = tuple(a + b for a, b in zip(inputs, scaled(direction, step), strict=True))
            return (output(moved) - start) / step

        short, long = slope(1e-9), slope(1e-6)
        return bool((short - long).abs().max() > 0.01 * long.abs().max())

    try:
        with torch.no_grad():
            start = output(inputs)
            return all(noisy(form.shape.draw(2, n, n, generator), start) for _ in range(DIRECTIONS))
    except TargetFailure:
        return False

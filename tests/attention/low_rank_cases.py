"""Layers in float64, their parameters as leaves, and masks, for the tests of linformer and compressed."""

import torch
from mechanism_cases import G, build
from torch.func import functional_call

from saccade.attention import to_mechanism

MASKS = {
    "none": None,
    "right": [[True] * 9 + [False] * 4, [True] * 13],
    "left": [[False] * 5 + [True] * 8, [True] * 13],
    "holes": [[True, True, False] * 4 + [True], [True] * 2 + [False] * 7 + [True] * 4],
    "empty": [[False] * 13, [True] * 13],
}


def mask_of(name):
    return None if MASKS[name] is None else torch.tensor(MASKS[name])


def layer_of(expression, **options):
    """A layer in float64, none of whose parameters is zero."""
    layer = build(to_mechanism(expression), **options).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4)
    return layer


def run(layer, q, k, v, parameters, **options):
    """A call with other parameters."""
    return functional_call(layer, parameters, (q, k, v), options)


def all_gradients(function, tensors, parameters, upstream):
    """The output, and the gradients of inputs and parameters."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    named = {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}
    out = function(*leaves, named)
    found = torch.autograd.grad(out, [*leaves, *named.values()], upstream.to(out.dtype), materialize_grads=True)
    return dict(zip(["out", "q", "k", "v", *named], (out.detach(), *found), strict=True))


def assert_all_same(actual, wanted, tolerance=1e-12):
    assert actual.keys() == wanted.keys()
    for name, other in wanted.items():
        size = max(1.0, other.abs().max().item()) if other.numel() else 1.0
        error = (actual[name].double() - other).abs().max().item() if other.numel() else 0.0
        assert error <= tolerance * size, f"{name} is off by {error:.2e}"


def each_head(matrix):
    """A matrix that heads share, once for each head."""
    return matrix.expand(G, -1, -1)

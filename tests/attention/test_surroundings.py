"""What surrounds a call changes nothing: checkpointing, autocast, grad modes, calls that came before."""

import pytest
import torch
from attend_cases import BACKENDS, assert_same, random_inputs, with_gradients
from torch.utils.checkpoint import checkpoint

from saccade.attention import MECHANISMS
from saccade.attention.dispatch import attend
from saccade.attention.patterns import Causal, Full, Global, Local, Random, Segments, Strided

WINDOW = Local(4) | Global(2)
SEVERAL_PARTS = Local(4) | Strided(9)


def layers():
    specs = {
        "full": MECHANISMS["full"](),
        "local": MECHANISMS["local"](left=4),
        "big_bird": MECHANISMS["big_bird"](block=8),
        "linear": MECHANISMS["linear"](),
    }
    return {name: spec.build(6, 5, 3, 7) for name, spec in specs.items()}


def reproducibly(function, *inputs, upstream):
    """By `backward`, which checkpointing of the older kind insists on."""
    torch.manual_seed(8)
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    out = function(*leaves)
    out.backward(upstream)
    return out.detach(), *(leaf.grad for leaf in leaves)


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("pattern", [WINDOW, SEVERAL_PARTS], ids=repr)
def test_checkpointing_repeats_the_same_call(pattern, reentrant, dropout, backend):
    *inputs, upstream = random_inputs(70, 70)

    def call(q, k, v):
        return attend(q, k, v, pattern, dropout=dropout, backend=backend)

    plain = reproducibly(call, *inputs, upstream=upstream)
    again = reproducibly(lambda *qkv: checkpoint(call, *qkv, use_reentrant=reentrant), *inputs, upstream=upstream)
    assert_same(again, plain)
    other = reproducibly(lambda *qkv: (torch.rand(1), call(*qkv))[1], *inputs, upstream=upstream)
    assert torch.equal(other[0], plain[0]) == (dropout == 0)


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", layers())
def test_checkpointing_a_layer_repeats_the_same_call(name, reentrant, causal):
    *inputs, upstream = random_inputs(70, 70)
    layer = layers()[name]
    plain = reproducibly(lambda *qkv: layer(*qkv, None, causal), *inputs, upstream=upstream)
    again = reproducibly(
        lambda *qkv: checkpoint(layer, *qkv, None, causal, use_reentrant=reentrant), *inputs, upstream=upstream
    )
    assert_same(again, plain)


def under_autocast(function):
    """As `with torch.autocast(...)` around the call alone, which is where torch wants it."""

    def call(*inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return function(*inputs)

    return call


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
@pytest.mark.parametrize("pattern", [Full(), Causal(), WINDOW, SEVERAL_PARTS], ids=repr)
@pytest.mark.parametrize("n", [40, 130])
def test_attend_computes_in_the_dtype_of_its_inputs_under_autocast(n, pattern, backend):
    """Twice: the second short call takes another way."""
    *inputs, upstream = random_inputs(n, n, dtype=torch.float32)

    def call(q, k, v):
        return attend(q, k, v, pattern, backend=backend)

    for _ in range(2):
        plain = with_gradients(call, *inputs, upstream=upstream)
        for one, other in zip(with_gradients(under_autocast(call), *inputs, upstream=upstream), plain, strict=True):
            assert one.dtype == torch.float32
            assert torch.equal(one, other)


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("name", layers())
def test_layers_compute_in_the_dtype_of_their_inputs_under_autocast(name, causal):
    *inputs, upstream = random_inputs(130, 130, dtype=torch.float32)
    layer = layers()[name]

    def call(q, k, v):
        return layer(q, k, v, causal=causal, q_start=0)

    plain = with_gradients(call, *inputs, upstream=upstream)
    for one, other in zip(with_gradients(under_autocast(call), *inputs, upstream=upstream), plain, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["blockwise", "pairs", "linear", "linear causal"])
def test_a_backward_pass_under_autocast_loses_nothing_either(name):
    """Where the derivative is our own; torch advises against it because of its own derivatives."""
    *inputs, upstream = random_inputs(130, 130, dtype=torch.float32)

    def call(q, k, v):
        if "linear" in name:
            return layers()["linear"](q, k, v, causal="causal" in name)
        return attend(q, k, v, SEVERAL_PARTS, backend=name)

    plain = with_gradients(call, *inputs, upstream=upstream)
    with torch.autocast("cpu", torch.bfloat16):
        cast = with_gradients(call, *inputs, upstream=upstream)
    assert all(torch.equal(one, other) for one, other in zip(cast, plain, strict=True))


def test_short_calls_that_differ_get_masks_of_their_own():
    """What is remembered of a short call must not serve another of the same shapes."""
    q, k, v, _ = random_inputs(30, 30)
    ids = torch.arange(30)
    calls = [
        (pattern, q_start, dtype)
        for pattern in (
            Local(2),
            Local(3),
            Causal(),
            Full(),
            Segments(ids // 7),
            Segments(ids // 8),
            Local(2) | Global(1),
        )
        for q_start in (0, 1, 7)
        for dtype in (torch.float64, torch.float32)
        if q_start == 0 or not isinstance(pattern, Segments)
    ]
    for _ in range(2):
        for pattern, q_start, dtype in calls:
            given = [x.to(dtype) for x in (q, k, v)]
            out = attend(*given, pattern, q_start=q_start)
            wanted = attend(*given, pattern, q_start=q_start, backend="reference")
            assert out.dtype == dtype
            torch.testing.assert_close(out, wanted, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-6)


def test_short_calls_of_the_same_shape_still_mind_their_options():
    """Remembered by pattern and shapes; a mask, a scale, a bias, dropout or a backend is a call of its own."""
    q, k, v, _ = random_inputs(30, 30)
    mask = (torch.arange(30) < 20).expand(2, -1)
    bias = torch.linspace(0, 3, 30, dtype=torch.float64).expand(1, 1, 30, 30)
    for _ in range(2):
        plain = attend(q, k, v, Local(3))
        for options in ({"key_mask": mask}, {"scale": 2.0}, {"bias": bias}):
            out = attend(q, k, v, Local(3), **options)
            wanted = attend(q, k, v, Local(3), **options, backend="reference")
            torch.testing.assert_close(out, wanted, rtol=0, atol=1e-12)
            assert not torch.allclose(out, plain)
        assert not torch.allclose(attend(q, k, v, Local(3), dropout=0.5), plain)


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
@pytest.mark.parametrize("before", [torch.inference_mode, torch.no_grad], ids=["inference_mode", "no_grad"])
@pytest.mark.parametrize("pattern", [Local(6), SEVERAL_PARTS | Global(1, last=1)], ids=repr)
def test_training_after_inference(pattern, before, backend):
    """What was kept from a call without gradients once made the next backward pass fail."""
    n = 40 + 2 * [*BACKENDS, "auto"].index(backend) + (before is torch.no_grad)  # for each case a first call
    *inputs, upstream = random_inputs(n, n, value_dim=5)
    with before():
        attend(*inputs, pattern, backend=backend)
    for _ in range(2):
        out, *gradients = with_gradients(
            lambda *qkv: attend(*qkv, pattern, backend=backend), *inputs, upstream=upstream
        )
        assert not out.requires_grad
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("backend", ["dense", "blockwise", "pairs"])
def test_another_default_device_changes_nothing(backend):
    """Some set it to the GPU and then create everything there; layouts are still made on the CPU."""
    n = 199
    q, k, v = (torch.randn(2, 2, n, 4) for _ in range(3))
    key_mask = torch.arange(n) < torch.tensor([[n], [150]])
    pattern = Local(9, 2) | Global(2, last=1) | Random(2, block=16, per_head=True, seed=7) | Strided(50)
    with torch.device("meta"):
        out = attend(q, k, v, pattern, key_mask=key_mask, backend=backend)
    torch.testing.assert_close(out, attend(q, k, v, pattern, key_mask=key_mask, backend="reference"))

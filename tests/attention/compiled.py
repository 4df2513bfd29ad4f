"""Compares compiled calls with eager ones and says what differs: run by test_compile.py in a fresh process.

A fresh process, because torch.compile cannot look through the run-time type checks of the other tests.
"""

import copy
import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from saccade.attention import MECHANISMS, dispatch, to_mechanism
from saccade.attention.backends import _operators as operators
from saccade.attention.dispatch import attend
from saccade.attention.patterns import (
    Axial,
    Causal,
    Edges,
    Full,
    Global,
    Local,
    Pattern,
    PerHead,
    Segments,
    Strided,
    big_bird,
)
from saccade.nn import Encoder

B, H, G, D, E, N = 2, 4, 2, 8, 6, 83
Case = tuple[Callable[..., Tensor], list[Tensor]]

DRAWS = torch.Generator().manual_seed(0)
GRAPH = torch.randint(N, (2, 150), generator=DRAWS)
PATTERNS: dict[str, Pattern] = {
    "full": Full(),
    "causal": Causal(),
    "local": Local(5),
    "last": Local(3) | Global(2, last=3),
    "big_bird": big_bird(block=4),
    "strided": Strided(7) | Local(4),
    "edges": Edges(GRAPH),
    "per_head": PerHead([Local(1), Strided(9), Axial(9, 9), Segments(torch.arange(N) // 7) | Global(1)]),
}
SMALL = {
    "linformer": {"rank": 6, "max_length": 100},
    "sinkhorn": {"block": 16},
    "lsh": {"bucket": 8, "rounds": 2},
    "routing": {"clusters": 4},
    "synthesizer": {"max_length": 100},
    "performer": {"features": 8},
    "rfa": {"features": 64},
}
"""Options of mechanisms whose defaults are for longer inputs, or take long to trace."""
FURTHER = (
    "linear(feature='relu')",
    "linear(feature='dpfp', nu=2)",
    "linear(feature='taylor')",
    "linear(feature='hedgehog')",
    "rfa(gate=True, features=64)",
)
"""Forms that compute otherwise; feature maps are the same in the causal form."""
SHORT = {"efficient": 5, "performer": 40, "rfa": 40}
"""Lengths of those that take long to trace: less than a chunk. Several chunks are shown by `linear`."""
MASK = torch.arange(N)[None] < torch.tensor([[N], [50]])


def inputs(n_q: int = N, dtype: torch.dtype = torch.float64, groups: int = G) -> list[Tensor]:
    shapes = (B, H, n_q, D), (B, groups, N, D), (B, groups, N, E)
    wide = [torch.randn(*shape, generator=DRAWS, dtype=torch.float64) for shape in shapes]
    return [x.to(dtype).requires_grad_() for x in wide]


def calling(pattern: Pattern, **options: object) -> Callable[..., Tensor]:
    return lambda q, k, v: attend(q, k, v, pattern, **options)


def cases() -> Iterator[tuple[str, Case]]:
    """Calls by name."""
    for name, pattern in PATTERNS.items():
        yield name, (calling(pattern), inputs())
        yield f"{name} in lists", (calling(pattern, backend="pairs" if name == "edges" else "blockwise"), inputs())
    for name in ("full", "causal", "last"):
        for backend in ("auto", "blockwise"):
            yield f"{name} {backend} masked", (calling(PATTERNS[name], key_mask=MASK, backend=backend), inputs())
    for backend in ("dense", "blockwise"):
        yield f"{backend} dropout", (calling(PATTERNS["last"], dropout=0.3, backend=backend), inputs())
        yield f"{backend} bf16", (calling(PATTERNS["last"], backend=backend), inputs(dtype=torch.bfloat16))
        yield f"{backend} at the end", (calling(Causal(), q_start=N - 20, backend=backend), inputs(20))
        yield f"{backend} ungrouped", (calling(PATTERNS["local"], backend=backend), inputs(groups=H))
    bias = torch.linspace(-1, 1, N, dtype=torch.float64).expand(1, H, N, N)
    yield "bias", (calling(PATTERNS["local"], bias=bias), inputs())
    yield "bias of full", (calling(Full(), bias=bias), inputs())
    yield from layers()
    encoder = Encoder(width=16, heads=4, layers=2, mechanism=["big_bird(block=4)", "linear"]).double()
    yield "encoder", (encoder, [torch.randn(B, N, 16, generator=DRAWS, dtype=torch.float64, requires_grad=True)])


def layers() -> Iterator[tuple[str, Case]]:
    """Every mechanism: in training with a mask, causal where it can be; in evaluation without, not causal."""
    for text in (*MECHANISMS, *FURTHER):
        spec = to_mechanism(text) if text in FURTHER else MECHANISMS[text](**SMALL.get(text, {}))
        dim, n = 2 if "taylor" in text else D, SHORT.get(spec.name, N)  # its many products take long to trace
        layer = spec.build(H, dim, G, E).double()
        gate = {"gate": torch.randn(B, G, n, 1, generator=DRAWS).double()} if "gate" in spec.inputs else {}
        q, k, v = (x.detach()[:, :, :n] for x in inputs())
        given = [x.requires_grad_() for x in (q[..., :dim], k[..., :dim], v)]
        if text not in FURTHER or gate:
            options = {"key_mask": MASK[:, -n:], "causal": spec.claims.causal, **gate}
            yield f"{text} masked, in training", (partial(layer, **options), given)
        if not spec.claims.causal_only:
            yield f"{text} alone", (spec.build(H, dim, G, E).double().eval(), given)


def found(function: Callable[..., Tensor], given: list[Tensor]) -> list[Tensor]:
    """Output and gradients, with the same dropout each time."""
    torch.manual_seed(5)
    out = function(*given)
    # LSH never reads keys.
    gradients = torch.autograd.grad(out.double().square().sum(), given, allow_unused=True, materialize_grads=True)
    return [out.detach(), *gradients]


def difference(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest; infinite where dtypes differ."""
    if [x.dtype for x in one] != [x.dtype for x in other]:
        return float("inf")
    return max(float((x.detach().double() - y.detach().double()).abs().max()) for x, y in zip(one, other, strict=True))


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    torch._dynamo.reset()
    return torch.compile(function, backend="aot_eager", fullgraph=True)


def report(name: str, error: float) -> None:
    """One line for what is wrong."""
    if not error <= 1e-12:
        sys.stdout.write(f"{name}: off by {error:.2e}\n")


def several_patterns_through_one_function() -> None:
    one = compiled(attend)
    q, k, v = inputs()
    ids = torch.arange(N)
    for pattern in (Local(3), Local(5), Local(3), Segments(ids // 7), Segments(ids // 9), Local(3) | Global(1)):
        report(f"one function, {pattern}", difference([one(q, k, v, pattern)], [attend(q, k, v, pattern)]))


def layers_that_share_their_code() -> None:
    torch._dynamo.reset()
    given = inputs()
    for left in (3, 5, 3):
        layer = MECHANISMS["local"](left=left).build(H, D, G, E)
        fast = torch.compile(layer, backend="aot_eager", fullgraph=True)
        report(f"one code, window {left}", difference([fast(*given)], [layer(*given)]))


def centroids_that_move() -> None:
    """A compiled layer notes for `after_step` what an eager one does, over several steps."""
    layers = [MECHANISMS["routing"](clusters=4).build(H, D, G, E).double() for _ in range(2)]
    torch._dynamo.reset()
    calls = layers[0], torch.compile(layers[1], backend="aot_eager", fullgraph=True)
    for _ in range(2):
        given = inputs()
        for layer, call in zip(layers, calls, strict=True):
            for _ in range(2):
                call(*given, MASK, True)
            copy.deepcopy(layer)  # which it could not be if what it notes had a graph
            layer.after_step()
    report("centroids", difference(*([layer.centroids] for layer in layers)))
    first = MECHANISMS["routing"](clusters=4).build(H, D, G, E).double()
    if difference([layers[0].centroids], [first.centroids]) == 0:
        sys.stdout.write("centroids did not move\n")


def masks_that_are_not_needed() -> None:
    for pattern, wanted in ((Full(), 0), (Causal(), 0), (Local(3), 1)):
        seen: list[str] = []

        def record(module: torch.fx.GraphModule, _: list[Tensor], seen: list[str] = seen) -> Callable[..., object]:
            seen += [str(node.target) for node in module.graph.nodes]
            return module.forward

        torch._dynamo.reset()
        torch.compile(calling(pattern), backend=record, fullgraph=True)(*inputs())
        if sum("allowed" in target for target in seen) != wanted:
            sys.stdout.write(f"{pattern}: {seen}\n")


def operators_by_themselves() -> None:
    """What torch itself asks of operators: schema, shapes and strides, gradients."""
    for pattern in (PATTERNS["local"], Strided(7) | Global(1, last=2)):
        text = operators.text_of(pattern)
        for backend, mask, seed in (
            ("blockwise", None, None),
            ("blockwise", MASK, torch.tensor(7)),
            ("pairs", MASK, None),
        ):
            q, k, v = inputs()
            options = text, backend, 0, 0.3, 0.0 if seed is None else 0.2
            torch.library.opcheck(operators.visit, (q, k, v, mask, seed, *options))
            q, k, v = (x.detach() for x in (q, k, v))
            out, lse = operators.visit(q, k, v, mask, seed, *options)
            torch.library.opcheck(operators.visit_backward, (out + 1, q, k, v, mask, out, lse, seed, *options))
            torch.library.opcheck(operators.allowed, (q, mask, text, N, 0))


def main() -> None:
    torch._dynamo.config.recompile_limit = 32
    torch.manual_seed(0)
    for name, (function, given) in cases():
        before = found(function, given)
        report(name, difference(found(compiled(function), given), before))
        dispatch._short_calls.clear()
        report(f"{name}, eagerly again", difference(found(function, given), before))
    several_patterns_through_one_function()
    layers_that_share_their_code()
    masks_that_are_not_needed()
    centroids_that_move()
    operators_by_themselves()
    sys.stdout.write("compared\n")


if __name__ == "__main__":
    main()

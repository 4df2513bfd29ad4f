"""Speed of patterns and mechanisms as a ratio to dense attention, interleaved in one run.

    python benchmarks/attention.py --lengths 1024,4096 --rounds 5

Each figure is the median time of dense `scaled_dot_product_attention` without a mask, divided by the median time of the
row, forward and forward + backward. Before anything is timed, every row is checked against the definition at n = 256.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from saccade import attend
from saccade.attention import to_mechanism

ROWS = [
    "full",
    "local",
    "local(right=0)",
    "longformer(window=256, first=2)",
    "big_bird",
    "strided(stride=128)",
    "linear",
]


def main() -> None:
    """Print one table for each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="1024,4096")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--causal", action="store_true", help="the causal forms, against causal dense attention")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, h {options.heads}, d {options.dim}, fp32")
    for row in ROWS:
        check(row, options.causal)
    for length in map(int, options.lengths.split(",")):
        report(length, options)


def check(row: str, causal: bool) -> None:
    """A row that is wrong is not timed."""
    q, k, v = (torch.randn(1, 2, 256, 16) for _ in range(3))
    layer = to_mechanism(row).build(2, 16)
    pattern = getattr(layer, "causal_pattern" if causal else "pattern", None)
    if pattern is not None:
        torch.testing.assert_close(layer(q, k, v, causal=causal), attend(q, k, v, pattern, backend="reference"))


def report(length: int, options: argparse.Namespace) -> None:
    """One table: every row forward, and forward + backward."""
    inputs = [torch.randn(1, options.heads, length, options.dim, requires_grad=True) for _ in range(3)]
    layers = {row: to_mechanism(row).build(options.heads, options.dim) for row in ROWS}
    calls = {row: lambda layer=layer: layer(*inputs, causal=options.causal) for row, layer in layers.items()}
    forward = interleaved({row: without_grad(call) for row, call in calls.items()}, options.rounds)
    both = interleaved({row: with_grad(call, inputs) for row, call in calls.items()}, options.rounds)
    print(f"\nn = {length}: ratio to full (ms)\n{'':34}{'forward':>18}{'forward + backward':>22}")
    for row in ROWS:
        times = [(forward["full"] / forward[row], forward[row]), (both["full"] / both[row], both[row])]
        print(f"{row:34}" + "    ".join(f"{ratio:7.1f}x {1e3 * seconds:8.1f}" for ratio, seconds in times))


def without_grad(call: Callable[[], Tensor]) -> Callable[[], object]:
    """The forward pass alone."""
    return torch.no_grad()(call)


def with_grad(call: Callable[[], Tensor], inputs: list[Tensor]) -> Callable[[], object]:
    """Forward and backward, gradients for all inputs."""
    grad = torch.randn_like(inputs[2])
    return lambda: torch.autograd.grad(call(), inputs, grad)


def interleaved(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call; all of them are called once in every round, so that drift hits them alike."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


if __name__ == "__main__":
    main()

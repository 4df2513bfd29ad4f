"""Memory of forward and backward, in a fresh process for each row: a size that was needed before is never given back.

Run as a script with an expression and a length it measures one row and prints two numbers of bytes: what torch counts
at its peak above inputs and output gradient, and how far the process grows (Linux alone tells that).
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from saccade.attention import to_mechanism
from saccade.bench.measure import peak_memory

ROWS = {
    "local(left=128)": (False, 5),
    "local(left=128) causal": (True, 5),
    "big_bird": (False, None),
    "linear": (False, None),
    "linear causal": (True, None),
}
HEADS, DIM = 8, 64


def tensors(n: int) -> None:
    """One table."""
    size = 4 * n * HEADS * DIM
    print(f"\nMemory of forward + backward, n = {n:,}, h {HEADS}, d {DIM}, fp32, above inputs and output gradient,")
    print(f"in tensors of (n, h, d) = {size / 2**20:.0f} MiB; output and gradients are 4 of them")
    print(f"{'':32}{'counted by torch':>18}{'growth of process':>20}{'goal':>12}")
    for name, (causal, goal) in ROWS.items():
        command = [sys.executable, __file__, name.removesuffix(" causal"), str(n), str(int(causal))]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        counted, grown = json.loads(done.stdout)
        growth = "-" if grown is None else f"{grown / size:.2f}"
        aim = "" if goal is None else f"at most {goal}" + ("!" if max(counted, grown or 0) > goal * size else "")
        print(f"{name:32}{counted / size:18.2f}{growth:>20}{aim:>12}", flush=True)


def measure(expression: str, n: int, causal: bool) -> None:
    """Print what one row takes."""
    layer = to_mechanism(expression).build(HEADS, DIM)

    def work(n: int) -> Callable[[], object]:
        inputs = [torch.randn(1, HEADS, n, DIM, requires_grad=True) for _ in range(3)]
        grad = torch.randn(1, HEADS, n, DIM)
        return lambda: torch.autograd.grad(layer(*inputs, causal=causal), inputs, grad)

    work(1024)()  # what libraries take once is not counted
    large = work(n)
    before = resident("VmRSS")
    large()
    grown = None if before is None else (resident("VmHWM") or 0) - before
    print(json.dumps([peak_memory(large, torch.device("cpu")), grown]))


def resident(field: str) -> int | None:
    """Bytes of this process in memory: now (VmRSS) or at most so far (VmHWM)."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":")), None)


if __name__ == "__main__":
    measure(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1")

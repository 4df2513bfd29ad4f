"""Time, memory and error of mechanisms over lengths, measured with dense attention in the same rounds.

At each length every mechanism runs once to warm up, is compared with what it should give, and has its memory measured.
Then all take turns, so that whatever else the machine does falls on all of them alike, as often as the time allows.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from saccade.attention import Mechanism
from saccade.attention.mechanism import AttentionLayer, arguments, input_sizes
from saccade.bench.accuracy import output_error
from saccade.bench.choice import BASELINE
from saccade.bench.measure import peak_memory, seconds_of
from saccade.bench.speed import DTYPES, Row, Setting, Speeds
from saccade.errors import must_be
from saccade.machine import free_memory
from saccade.shapes import Tensor

LEAST_ROUNDS = 3
PATIENCE = 6
"""A mechanism that would take longer than so many times the seconds of a length, in the fewest rounds, is skipped."""
BOTH = 4.5
"""A forward pass, and a forward and backward pass, next to one forward pass alone: what a guess starts from."""


@dataclass(frozen=True)
class Progress:
    """How far a measurement is.

    Attributes:
        found: what is known.
        length: the length that is being measured.
        doing: what is going on, in words.
        detail: more of that, which changes faster than a line can be read.
        left: seconds that it will still take, an estimate.
    """

    found: Speeds
    length: int
    doing: str
    detail: str
    left: float


def measure_speeds(
    mechanisms: Sequence[Mechanism],
    setting: Setting | None = None,
    *,
    on_change: Callable[[Progress], object] = lambda progress: None,
    on_length: Callable[[Speeds], object] = lambda found: None,
) -> Speeds:
    """Measure mechanisms over lengths, on CUDA where there is such a device and else on the CPU.

    Args:
        mechanisms: with dense attention, `full`, among them.
        setting: what to measure.
        on_change: called whenever there is something new to show.
        on_length: called with what is known whenever a length is done.

    Returns:
        What was found, also after Ctrl-C: what had no whole turn is `stopped`.

    Raises:
        ValueError: dense attention is not among them.
    """
    if BASELINE not in map(str, mechanisms):
        raise ValueError(must_be("mechanisms", f"with {BASELINE} among them", ", ".join(map(str, mechanisms))))
    race = _Race(mechanisms, setting or Setting(), on_change)
    try:
        for n in sorted(race.setting.lengths):
            race.run(n)
            on_length(race.found)
    except KeyboardInterrupt:
        race.stop()
    return race.found


class _Candidate:
    """A layer with inputs of its own."""

    def __init__(self, spec: Mechanism, n: int, setting: Setting, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(setting.seed)
        sizes = input_sizes(setting.heads, setting.head_dim, setting.heads, setting.head_dim)
        sizes = {"grad": sizes["q"], **sizes}
        drawn = {
            name: torch.randn(setting.batch, heads, n, dim, generator=generator) for name, (heads, dim) in sizes.items()
        }
        kind = {"device": device, "dtype": DTYPES[setting.dtype]}
        self.grad = drawn.pop("grad").to(**kind)
        self.inputs = {name: drawn[name].to(**kind).requires_grad_() for name in spec.inputs}
        self.layer: AttentionLayer = spec.build(setting.heads, setting.head_dim).to(**kind)
        self.causal = setting.causal

    def call(self) -> Tensor:
        """A forward pass."""
        return self.layer(**arguments(self.inputs), causal=self.causal)

    def evaluated(self) -> Tensor:
        """A forward pass in evaluation mode: training may draw noise."""
        self.layer.eval()
        out = self.forward()
        self.layer.train()
        return out

    def forward(self) -> Tensor:
        """A forward pass without gradients."""
        with torch.no_grad():
            return self.call()

    def both(self) -> object:
        """A forward and a backward pass, to all inputs and parameters."""
        return torch.autograd.grad(self.call(), [*self.inputs.values(), *self.layer.parameters()], self.grad)


class _Race:
    """What is known, and how it comes to be known."""

    def __init__(
        self, mechanisms: Sequence[Mechanism], setting: Setting, on_change: Callable[[Progress], object]
    ) -> None:
        self.specs = {str(spec): spec for spec in mechanisms}
        self.setting, self.on_change = setting, on_change
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.rows = {(n, name): self.row(n, name) for n in sorted(setting.lengths) for name in self.specs}
        self.pace = dict.fromkeys(self.specs, (1.3 if setting.forward_only else BOTH) * _pace_of_products(self.device))
        """Seconds of one round of each mechanism for each operation that it carries out."""

    @property
    def found(self) -> Speeds:
        """All that is known."""
        return Speeds(self.setting, dict(self.rows))

    def row(self, n: int, name: str) -> Row:
        """Before anything is measured."""
        spec, setting = self.specs[name], self.setting
        causal = spec.claims.causal_only or (setting.causal and spec.claims.causal)
        row = Row(name, n, spec.cost(n, n, setting.heads, setting.head_dim, causal=causal))
        if setting.causal == causal:
            return row
        reason = "it does not claim causality" if setting.causal else "it has only a causal form"
        return replace(row, status="skipped", reason=reason)

    def waiting(self, n: int) -> list[str]:
        """The mechanisms that have not failed at a length and are not done."""
        return [name for name in self.specs if self.rows[n, name].status == "waiting"]

    def stop(self) -> None:
        """Keep the rounds in which all of a length had their turn, and note which had none."""
        for n in self.setting.lengths:
            waiting = {name: self.rows[n, name] for name in self.waiting(n)}
            whole = min((len(self.found.seconds(row)) for row in waiting.values()), default=0)
            for name, row in waiting.items():
                kept = replace(row, status="done" if whole else "stopped")
                self.rows[n, name] = replace(kept, forward=row.forward[:whole], both=row.both[:whole])

    def run(self, n: int) -> None:
        """All mechanisms at one length."""
        for name in self.waiting(n):
            if reason := self.too_much(n, name):
                self.rows[n, name] = replace(self.rows[n, name], status="skipped", reason=reason)
        candidates = {}
        for name in self.waiting(n):
            with self.turn(n, name):
                candidates[name] = self.warm_up(n, name)
        rounds = self.rounds(n)
        for number in range(rounds):
            for name in self.waiting(n):
                detail = f", round {number + 1}: {name}"
                self.tell(n, f"n = {n:,}: {rounds} rounds", (rounds - number) * self.round_seconds(n), detail)
                with self.turn(n, name):
                    self.time(n, name, candidates[name])
        for name in self.waiting(n):
            self.rows[n, name] = replace(self.rows[n, name], status="done")

    def warm_up(self, n: int, name: str) -> _Candidate:
        """The first runs, which also tell error, memory and pace."""
        self.tell(n, f"n = {n:,}: warming up {name}", self.rounds(n) * self.round_seconds(n))
        candidate = _Candidate(self.specs[name], n, self.setting, self.device)
        causal = self.setting.causal
        error, against = output_error(
            self.specs[name], candidate.layer, candidate.inputs, candidate.evaluated(), causal
        )
        first = seconds_of(candidate.forward, self.device)
        work, peaks = self.work(candidate), []
        seconds = first + seconds_of(lambda: peaks.append(peak_memory(work, self.device)), self.device)
        self.pace[name] = seconds / max(1, self.rows[n, name].cost.computed)
        self.rows[n, name] = replace(self.rows[n, name], error=error, against=against, peak_bytes=peaks[0])
        return candidate

    def work(self, candidate: _Candidate) -> Callable[[], object]:
        """The heavier of what is timed."""
        return candidate.forward if self.setting.forward_only else candidate.both

    def time(self, n: int, name: str, candidate: _Candidate) -> None:
        """One round of one mechanism."""
        row = self.rows[n, name]
        row = replace(row, forward=(*row.forward, seconds_of(candidate.forward, self.device)))
        if not self.setting.forward_only:
            row = replace(row, both=(*row.both, seconds_of(candidate.both, self.device)))
        self.rows[n, name] = row

    def seconds(self, n: int, name: str) -> float:
        """Of one round at the pace of the last length."""
        return self.pace[name] * self.rows[n, name].cost.computed

    def rounds(self, n: int) -> int:
        """As many as the time allows, of all that wait."""
        seconds = sum(self.seconds(n, name) for name in self.waiting(n))
        allowed = math.floor(self.setting.seconds / seconds) if seconds else self.setting.rounds
        return min(self.setting.rounds, max(LEAST_ROUNDS, allowed))

    def too_much(self, n: int, name: str) -> str:
        """Why a mechanism is not to be run at a length, if it is not."""
        cost, batch = self.rows[n, name].cost, self.setting.batch
        # What is kept has a gradient of its size, and so have inputs and output.
        needed, free = 2 * batch * (cost.kept + cost.bytes), free_memory()
        if free is not None and self.device.type == "cpu" and needed > free:
            return f"it would take about {needed / 1e9:.0f} GB of memory, and {free / 1e9:.0f} GB are free"
        seconds = min(LEAST_ROUNDS, self.setting.rounds) * self.seconds(n, name)
        if seconds > PATIENCE * self.setting.seconds:
            return f"it would take about {seconds:.0f} seconds"
        return ""

    @contextmanager
    def turn(self, n: int, name: str) -> Iterator[None]:
        """What goes wrong while entered is the failure of this mechanism at this length, and no other's."""
        try:
            yield
        except Exception as error:  # any failure of user-chosen settings, an exhausted memory included
            reason = str(error).strip().splitlines() or [""]
            failed = replace(self.rows[n, name], status="failed", reason=f"{type(error).__name__}: {reason[0]}")
            self.rows[n, name] = replace(failed, forward=(), both=())

    def tell(self, n: int, doing: str, seconds: float, detail: str = "") -> None:
        """Show how far it is; so many seconds are left of this length."""
        later = [m for m in self.setting.lengths if m > n]
        seconds += sum((1 + self.rounds(m)) * self.round_seconds(m) for m in later)
        self.on_change(Progress(self.found, n, doing, detail, seconds))

    def round_seconds(self, n: int) -> float:
        """Of one round of all that are to run at a length."""
        return math.fsum(self.seconds(n, name) for name in self.waiting(n) if not self.too_much(n, name))


def _pace_of_products(device: torch.device) -> float:
    """Seconds of one operation in a matrix product that fits into a cache."""
    a = torch.ones(8, 256, 256, device=device)
    torch.bmm(a, a)
    return min(seconds_of(lambda: torch.bmm(a, a), device) for _ in range(3)) / (2 * 8 * 256**3)

"""What a comparison found: rows, as a Markdown table for people and as JSONL for programs."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

from saccade.bench.measure import Ratio, speed_ratio
from saccade.machine import machine, place, versions
from saccade.shapes import Bool, Tensor
from saccade.tasks import Recipe
from saccade.training import half_width

Status = Literal["waiting", "done", "failed", "stopped"]
COLUMNS = (
    "mechanism",
    "test accuracy",
    "training steps/s",
    "speed",
    "inference ms/batch",
    "peak memory MB",
    "parameters",
)


@dataclass(frozen=True, eq=False)
class Row:
    """What was found of one mechanism; what was not measured, or not yet, is empty.

    Attributes:
        mechanism: its expression.
        status: `waiting` until it is trained, then what became of it.
        reason: why it failed.
        parameters: trained numbers of the whole model.
        peak_bytes: the most that torch held in two training steps, weights and optimiser included.
        step_seconds: of a training step, in rounds that all mechanisms shared.
        inference_seconds: of a forward pass over a batch, in the same rounds.
        training_seconds: of the whole training.
        loss: of the last training step, in nats.
        right: for each test example, whether it was labelled right.
    """

    mechanism: str
    status: Status = "waiting"
    reason: str = ""
    parameters: int | None = None
    peak_bytes: int | None = None
    step_seconds: tuple[float, ...] = ()
    inference_seconds: tuple[float, ...] = ()
    training_seconds: float | None = None
    loss: float | None = None
    right: Bool[Tensor, " n"] | None = None

    @property
    def accuracy(self) -> float:
        """Share of test examples labelled right; NaN before they were."""
        return math.nan if self.right is None else self.right.double().mean().item()

    @property
    def standard_error(self) -> float:
        """Standard error of the accuracy (Wilson's, which is not zero at 0 and 1), all examples being independent."""
        return math.nan if self.right is None else half_width(self.accuracy, len(self.right), z=1.0)

    @property
    def steps_per_second(self) -> float:
        """Of the median round; NaN before it was measured."""
        return 1 / median(self.step_seconds) if self.step_seconds else math.nan


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several mechanisms on the same data, in the same steps, from the same seed.

    Attributes:
        rows: one a mechanism, in the order in which they ran.
        baseline: the expression of the dense baseline, or `None` where it was left out.
        majority_share: accuracy on the test examples of always guessing the commonest class.
        facts: data, machine, versions and settings in words.
        settings: the recipe as nested tables.
    """

    rows: tuple[Row, ...]
    baseline: str | None
    majority_share: float
    facts: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def stopped(self) -> bool:
        """Whether it was stopped before all mechanisms had their turn."""
        return any(row.status == "stopped" for row in self.rows)

    def speed(self, row: Row) -> Ratio | None:
        """How many times as fast as the baseline a row trains; `None` where one of the two was not measured."""
        dense = next((other for other in self.rows if other.mechanism == self.baseline), None)
        if dense is None or not dense.step_seconds or len(dense.step_seconds) != len(row.step_seconds):
            return None
        return speed_ratio(row.step_seconds, dense.step_seconds)


def to_markdown(found: Comparison, sentence: str) -> str:
    """Facts, table and the sentence."""
    facts = [f"- {name}: {value}" for name, value in found.facts.items()]
    table = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *(_cells(found, row) for row in found.rows)]
    failures = [f"`{row.mechanism}` failed: {row.reason}" for row in found.rows if row.status == "failed"]
    speed = "" if found.baseline is None else f" Speed is that of a training step, `{found.baseline}` being 1."
    notes = (
        f"± is one standard error over the test examples; always guessing the commonest class gives "
        f"{found.majority_share:.1%}.{speed} Times are medians of rounds in which all took turns. "
        "Memory is the most that torch held in training steps."
    )
    lines = [*facts, "", *(f"| {' | '.join(row)} |" for row in table), "", *failures, *([""] if failures else [])]
    return "\n".join([*lines, notes, "", f"**{sentence}**", ""])


def to_jsonl(found: Comparison) -> str:
    """One record a mechanism that had its turn; each stands alone, with machine, versions, seeds and settings."""
    turns = [row for row in found.rows if row.status in ("done", "failed")]
    return "".join(json.dumps(_record(found, row), allow_nan=False) + "\n" for row in turns)


def facts_of(recipe: Recipe) -> dict[str, str]:
    """Model, training, machine and versions in words."""
    model, training, made_with = recipe.model, recipe.training, versions()
    shape = f"{model.layers} layers, width {model.width}, {model.heads} heads, hidden {model.hidden}"
    steps = f"{training.steps} steps of {training.batch_size}, learning rate {training.learning_rate:g}"
    return {
        "model": f"{shape}, {model.position} positions, {model.normalisation} norms ({model.norm})",
        "training": f"{steps}, {training.precision}, seed {training.seed} (data: seed {recipe.data.seed})",
        "machine": place(),
        "versions": ", ".join(f"{name} {version}" for name, version in made_with.items()),
    }


def _cells(found: Comparison, row: Row) -> tuple[str, ...]:
    ratio = found.speed(row)
    score = row.status if row.right is None else f"{row.accuracy:.1%} ± {row.standard_error * 100:.1f}"
    return (
        f"`{row.mechanism}`".replace("|", r"\|"),
        score,
        f"{row.steps_per_second:.2f}" if row.step_seconds else "-",
        f"{ratio.value:.2f}x" if ratio else "-",
        f"{median(row.inference_seconds) * 1000:.0f}" if row.inference_seconds else "-",
        f"{row.peak_bytes / 1e6:.0f}" if row.peak_bytes is not None else "-",
        f"{row.parameters:,}" if row.parameters is not None else "-",
    )


def _record(found: Comparison, row: Row) -> dict[str, Any]:
    done, ratio = row.right is not None, found.speed(row)
    return {
        "mechanism": row.mechanism,
        "status": row.status,
        "reason": row.reason or None,
        "test_accuracy": row.accuracy if done else None,
        "standard_error": row.standard_error if done else None,
        "test_examples": 0 if row.right is None else len(row.right),
        "majority_share": found.majority_share,
        "train_loss": row.loss,
        "train_seconds": row.training_seconds,
        "steps_per_second": row.steps_per_second if row.step_seconds else None,
        "speed_to_baseline": asdict(ratio) if ratio else None,
        "baseline": found.baseline,
        "step_seconds": row.step_seconds,
        "inference_seconds": row.inference_seconds,
        "peak_memory_bytes": row.peak_bytes,
        "parameters": row.parameters,
        "machine": machine(),
        "versions": versions(),
        "seeds": {table: found.settings[table]["seed"] for table in ("data", "training") if table in found.settings},
        "settings": finite(found.settings),
        "facts": found.facts,
    }


def finite(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON can hold them: infinity, such as of a clip that clips nothing, becomes a word."""
    return {
        name: finite(value)
        if isinstance(value, dict)
        else str(value)
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for name, value in settings.items()
    }


def join(names: Sequence[str]) -> str:
    """Names in a sentence: `a`, `b` and `c`."""
    quoted = [f"`{name}`" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)

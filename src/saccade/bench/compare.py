"""Train and score several mechanisms alike: same data, seed, batches and number of steps.

First they take turns at single training steps, which gives speeds that a busy machine cannot favour, and the peak of
their memory. Then each is trained from the same seed and scored on the test split. What is found is written after
every turn, so that neither Ctrl-C nor the failure of one mechanism loses what the others have shown.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import torch
from accelerate import PartialState

from saccade import config
from saccade.attention import Mechanism
from saccade.bench.bubbles import comparison_figure
from saccade.bench.choice import BASELINE, read_mechanisms
from saccade.bench.live import OnChange, State
from saccade.bench.measure import COUNTED, ROUNDS, peak_memory, seconds_of
from saccade.bench.plots import save
from saccade.bench.report import Comparison, Row, facts_of, to_jsonl, to_markdown
from saccade.bench.trial import Trial, right_answers
from saccade.bench.verdict import verdict
from saccade.data import LabelledData
from saccade.data import load as load_data
from saccade.tasks import Recipe, classification_recipe
from saccade.tasks.classification import Prepared, prepare
from saccade.training import Interrupted
from saccade.writing import refuse_existing, write

DEFAULT_MECHANISMS = "full, local(left=64), big_bird(block=32), linear"
"""At the default length of 1,024, a quarter or less of the pairs: blocks of 64 would leave Big Bird 9 of 16."""

DEFAULTS = (
    "model.width=64",
    "model.heads=2",
    "model.hidden=128",
    "training.steps=200",
    "training.learning_rate=3e-3",
)
"""What a comparison without a recipe changes in the task's defaults: done in minutes on two cores (docs/log.md)."""

REPORT, RECORDS, PICTURE, RECIPE = "report.md", "results.jsonl", "picture.png", "recipe.toml"


def compare(
    recipe: Recipe,
    mechanisms: str | Sequence[str],
    out: Path,
    *,
    baseline: bool = True,
    on_change: OnChange = lambda state: None,
) -> Comparison:
    """Compare mechanisms in the model of a recipe, and write what is found into the folder `out`.

    Args:
        recipe: data, model and training; its own mechanism does not matter.
        mechanisms: names or expressions, in a list or with commas between them.
        out: a new folder for the report, the records, the picture and the recipe.
        baseline: whether dense attention runs too, first, where it is not among the mechanisms.
        on_change: called whenever there is something new to show.

    Returns:
        What was found, also after Ctrl-C: what had no turn is `stopped`.

    Raises:
        ValueError: an unknown mechanism or one named twice, or data that cannot be as the recipe says.
        FileExistsError: `out` exists; nothing in it is touched.
        OSError: a file could not be read or written.
    """
    specs = read_mechanisms(mechanisms, baseline)
    refuse_existing(out)
    data = load_data(recipe.data)
    out.mkdir(parents=True)
    write(out / RECIPE, config.dump(recipe))
    race = _Race(recipe, specs, data, on_change)
    try:
        race.measure()
        for name in race.waiting():
            race.train(name)
            _write(race.found(), out)
    except (Interrupted, KeyboardInterrupt):
        race.stop()
    found = _draw(race.found(), out)
    _write(found, out)
    return found


def comparison_recipe(path: Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file, or the one for a machine with two cores, with overrides such as `"data.seed=1"`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown key or a value that does not fit; the message says where.
    """
    return classification_recipe(path, [*(DEFAULTS if path is None else ()), *overrides])


class _Race:
    """What is known of each mechanism, and how it comes to be known."""

    def __init__(self, recipe: Recipe, specs: Sequence[Mechanism], data: LabelledData, on_change: OnChange) -> None:
        self.recipe, self.data, self.on_change = recipe, data, on_change
        self.rows = {str(spec): Row(str(spec)) for spec in specs}
        self.device = torch.device(PartialState().device or "cpu")

    def found(self) -> Comparison:
        """All that is known."""
        return Comparison(
            rows=tuple(self.rows.values()),
            baseline=BASELINE if BASELINE in self.rows else None,
            majority_share=self.data.majority_share(self.data.test),
            facts={**self.data.facts, **facts_of(self.recipe)},
            settings=asdict(self.recipe),
        )

    def waiting(self) -> list[str]:
        """The mechanisms that have not failed and are not done."""
        return [name for name, row in self.rows.items() if row.status == "waiting"]

    def stop(self) -> None:
        """Note which had no turn."""
        for name in self.waiting():
            self.rows[name] = replace(self.rows[name], status="stopped")

    def measure(self) -> None:
        """The memory of each mechanism where it can be told, then its speed in rounds in which they take turns."""
        for name in self.waiting() if self.device.type in COUNTED else ():
            self.tell(f"measuring memory: {name}")
            with self.turn(name):
                peak = peak_memory(lambda name=name: self.two_steps(name), self.device)
                self.rows[name] = replace(self.rows[name], peak_bytes=peak)
        trials = {name: Trial(self.prepare(name), self.device) for name in self.waiting()}
        for number in range(ROUNDS + 1):
            self.tell(f"measuring speed: round {number + 1} of {ROUNDS + 1}")
            for name in self.waiting():
                with self.turn(name):
                    self.time(name, trials[name], warms_up=number == 0)

    def two_steps(self, name: str) -> None:
        """From building the model to where the optimiser has its state and gradients come on top of it."""
        trial = Trial(self.prepare(name), self.device)
        trial.step()
        trial.step()

    def time(self, name: str, trial: Trial, warms_up: bool) -> None:
        """One round of one mechanism."""
        step, inference = seconds_of(trial.step, self.device), seconds_of(trial.infer, self.device)
        if not warms_up:
            row = self.rows[name]
            times = (*row.step_seconds, step), (*row.inference_seconds, inference)
            self.rows[name] = replace(row, step_seconds=times[0], inference_seconds=times[1])

    def train(self, name: str) -> None:
        """One mechanism from the seed to its score."""

        def on_step(step: int, value: float, seconds: float) -> None:
            self.tell(f"training {name}", name, step, value)

        with self.turn(name):
            prepared = self.prepare(name)
            started = time.perf_counter()
            trained = prepared.fit(quiet=True, on_step=on_step)
            seconds = time.perf_counter() - started
            self.tell(f"testing {name}")
            pad_id, batch_size = self.data.vocabulary.pad_id, self.recipe.training.batch_size
            right = right_answers(prepared.model, self.data.test, pad_id, batch_size)
            row = replace(self.rows[name], training_seconds=seconds, loss=trained.loss, right=right)
            self.rows[name] = replace(row, status="done")

    def prepare(self, name: str) -> Prepared:
        """The model of one mechanism, with the weights that all start from."""
        prepared = prepare(replace(self.recipe, model=replace(self.recipe.model, mechanism=name)), self.data)
        count = sum(weight.numel() for weight in prepared.model.parameters())
        self.rows[name] = replace(self.rows[name], parameters=count)
        return prepared

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """What goes wrong while entered is the failure of this mechanism, and no other's."""
        try:
            yield
        except Interrupted:
            raise
        except Exception as error:  # any failure of user-chosen settings, an exhausted memory included
            reason = str(error).strip().splitlines() or [""]
            text = f"{type(error).__name__}: {reason[0]}"
            self.rows[name] = replace(self.rows[name], status="failed", reason=text)

    def tell(self, doing: str, running: str | None = None, step: int = 0, value: float = math.nan) -> None:
        """Show how far it is."""
        left = tuple(self.seconds_left(row, step if row.mechanism == running else 0) for row in self.rows.values())
        rows, steps = tuple(self.rows.values()), self.recipe.training.steps
        self.on_change(State(rows, doing, steps, running, step, value, left))

    def seconds_left(self, row: Row, done: int) -> float:
        """Steps and tests to come at the measured speed."""
        if row.status != "waiting":
            return 0.0
        if not row.step_seconds:
            return math.nan
        settings = self.recipe.training
        tests = math.ceil(len(self.data.test) / settings.batch_size)
        return median(row.step_seconds) * (settings.steps - done) + median(row.inference_seconds) * tests


def _write(found: Comparison, out: Path) -> None:
    write(out / RECORDS, to_jsonl(found))
    write(out / REPORT, to_markdown(found, verdict(found)))


def _draw(found: Comparison, out: Path) -> Comparison:
    """Add the picture; without matplotlib the facts say what is missing."""
    if all(row.right is None for row in found.rows):
        return found
    try:
        save(comparison_figure(found), out / PICTURE)
        return found
    except ModuleNotFoundError as error:
        return replace(found, facts={**found.facts, "picture": f"none, as {error}"})

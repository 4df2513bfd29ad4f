"""The page of a sweep, a function of its plan and records alone: tables, pictures and what may be concluded."""

import math
import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import stdev

from saccade.bench.plots import save
from saccade.bench.sweep.choice import best
from saccade.bench.sweep.conclusions import NEVER, of_choice, of_task
from saccade.bench.sweep.pictures import bubbles, scores_figure
from saccade.bench.sweep.plan import Plan
from saccade.bench.sweep.records import DONE, Record, Records, file_name, matching, to_lines
from saccade.bench.sweep.standing import Standing, standings
from saccade.tasks import Recipe
from saccade.writing import write

COLUMNS = (
    "mechanism",
    "test accuracy",
    "seeds",
    "validation",
    "steps/s",
    "training speed",
    "inference speed",
    "memory",
    "parameters",
)
PICTURES = "images"


def write_page(plan: Plan, path: Path, records: Records, report: Path) -> None:
    """Write the page, its records beside it one a line, and its pictures into `images`.

    Args:
        plan: what the records belong to; others are left out.
        path: where the plan is, for the commands on the page.
        records: all of them.
        report: where the page goes. Without matplotlib it has no pictures.

    Raises:
        ValueError: there are records, and none of them is the plan's.
        OSError: something could not be written.
    """
    own = planned(plan, records)
    if records and not matching(plan, records):
        advice = "nothing is written; run the plan, or name the one that they were made with"
        raise ValueError(f"none of the {len(records)} records was made with the settings of {path}: {advice}")
    report.parent.mkdir(parents=True, exist_ok=True)
    pictures: list[str] = []
    with suppress(ModuleNotFoundError):
        pictures = _draw(plan, own, report)
    ordered = sorted(own.items(), key=lambda each: file_name(each[0]))
    write(report.with_suffix(".jsonl"), to_lines(record for _, record in ordered))
    write(report, to_page(plan, path, own, report.stem, pictures))


def planned(plan: Plan, records: Records) -> Records:
    """The records of cells that the plan has, of both stages and of speed, made with its settings."""
    own = matching(plan, records)
    cells = plan.whole(best(plan, own) or [])
    return {cell: record for cell, record in own.items() if cell in cells}


def to_page(plan: Plan, path: Path, records: Records, name: str, pictures: Sequence[str] = ()) -> str:
    """The page as Markdown.

    Args:
        plan: what the records belong to.
        path: of the plan.
        records: those of the plan.
        name: of the page, without its ending.
        pictures: the files that there are, from the page's folder.
    """
    parts = [
        _head(plan, path, records, name),
        _picture(pictures, f"{name}-scores.png", "Test accuracy of every mechanism and seed"),
        *(_task(plan, records, task, name, pictures) for task in plan.recipes),
        _conclusions(plan, records),
        _again(plan, path),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _draw(plan: Plan, records: Records, report: Path) -> list[str]:
    """The pictures, each by its path from the page's folder."""
    rows = {task: standings(plan, records, task) for task in plan.recipes}
    figures = {f"{report.stem}-{task}.png": bubbles(task, found) for task, found in rows.items()}
    figures[f"{report.stem}-scores.png"] = scores_figure(rows)
    there = {name: figure for name, figure in figures.items() if figure is not None}
    if there:
        (report.parent / PICTURES).mkdir(exist_ok=True)
    for name, figure in there.items():
        save(figure, report.parent / PICTURES / name, colors=128)
    return [f"{PICTURES}/{name}" for name in there]


def _head(plan: Plan, path: Path, records: Records, name: str) -> str:
    done = [record for record in records.values() if record["status"] == DONE]
    dates = sorted(record["date"][:10] for record in done) or ["-"]
    frame = plan.frame
    threads = f"{frame.threads} thread{'s' * (frame.threads > 1)}"
    return f"""# Mechanisms on the same data

Written by `saccade sweep` from [its records]({name}.jsonl), one a line, each with settings, machine, versions, seed
and date; the plan is `{path.as_posix()}`. {len(done)} of its {plan.size} records are there, made from
{dates[0]} to {dates[-1]}. A training has {threads}; speed is measured with {frame.speed_threads}.

- machine: {"; ".join(_unique(_place(record) for record in done)) or "none yet"}
- versions: {"; ".join(_unique(_versions(record) for record in done)) or "none yet"}

Test accuracy is the mean over the seeds ± their standard deviation. Validation chose who went on; the test had no say.
Speed is that of a training step (and of a forward pass, for inference) of the whole model, dense attention (`full`)
being 1, in rounds in which the two took turns; in brackets the range that holds the true median with 98 % confidence.
The row of `full` is dense attention against itself: what differs from 1 there is noise. Memory is the most that torch
held in two training steps, with weights and optimiser, next to dense attention's."""


def _task(plan: Plan, records: Records, task: str, name: str, pictures: Sequence[str]) -> str:
    rows = standings(plan, records, task)
    lines = [f"## {task}", "", *_facts(plan.recipes[task], _of(records, task)), ""]
    if not rows:
        return "\n".join([*lines, "Not run yet."])
    cells = [_cells(row) for row in rows if row.scores or row.speed]
    table = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *cells] if cells else []
    lines += [f"| {' | '.join(row)} |" for row in table]
    troubles = [f"- `{row.mechanism}`: {trouble}" for row in rows for trouble in row.trouble]
    lines += ["", *troubles] if cells and troubles else troubles
    picture = _picture(pictures, f"{name}-{task}.png", f"Speed, score and memory on {task}")
    return "\n".join([*lines, *(["", picture] if picture else [])])


def _facts(recipe: Recipe, records: Sequence[Record]) -> list[str]:
    """Data, model and training in words."""
    model, training = recipe.model, recipe.training
    found = next((record["data_facts"] for record in records if record["status"] == DONE), {})
    data = "; ".join(f"{name} {value}" if name == "python" else f"{name}: {value}" for name, value in found.items())
    return [
        f"- data: `{recipe.data.source}`{'; ' + data if data else ''}",
        f"- model: {model.layers} layers, width {model.width}, {model.heads} heads, hidden {model.hidden}, "
        f"{model.position} positions, {model.pooling} pooling",
        f"- training: {training.steps} steps of {training.batch_size} sequences, learning rate "
        f"{training.learning_rate:g}, {training.precision}",
    ]


def _cells(row: Standing) -> tuple[str, ...]:
    spread = f" ± {stdev(row.scores) * 100:.1f}" if len(row.scores) > 1 else ""
    return (
        f"`{row.mechanism}`".replace("|", r"\|"),
        f"{row.score:.1%}{spread}" if row.scores else "-",
        str(len(row.scores)),
        f"{row.validation:.1%}" if row.scores else "-",
        f"{row.steps_per_second:.2f}" if row.speed else "-",
        _ratio(row, "step"),
        _ratio(row, "inference"),
        _memory(row),
        f"{row.parameters:,}" if row.parameters else "-",
    )


def _ratio(row: Standing, what: str) -> str:
    ratio = row.ratio(what)
    return f"{ratio.value:.2f}x ({ratio.low:.2f}-{ratio.high:.2f})" if ratio else "-"


def _memory(row: Standing) -> str:
    known = row.speed and not math.isnan(row.memory)
    return f"{row.memory:.2f} ({row.speed['peak_bytes'] / 1e6:.0f} MB)" if row.speed and known else "-"


def _conclusions(plan: Plan, records: Records) -> str:
    chosen = best(plan, records)
    lines = ["## What may be concluded, and what not", "", of_choice(plan, chosen), ""]
    for task in plan.recipes:
        lines += [f"**{task}**", "", *(f"- {sentence}" for sentence in of_task(standings(plan, records, task))), ""]
    return "\n".join([*lines, "And whatever the numbers:", "", NEVER])


def _again(plan: Plan, path: Path) -> str:
    task, mechanism = next(iter(plan.recipes)), plan.mechanisms[-1]
    row = f"--task {shlex.quote(task)} --mechanism {shlex.quote(mechanism)}"
    return f"""## The same again

One row, score and speed; the mechanism is written as in the table, and the seeds are {_listed(plan)}:

```
saccade sweep {path.as_posix()} --out runs/again {row} --seed {plan.frame.seeds[0]}
```

`--only first` trains it alone, `--only speed` measures it alone. On one machine and with the same versions a training
comes out the same to the last digit, however many run at a time. The whole page; stopped, the same line goes on:

```
saccade sweep {path.as_posix()} --out runs/results --jobs 2 --report docs/sweep.md
```"""


def _listed(plan: Plan) -> str:
    return ", ".join(map(str, dict.fromkeys([*plan.frame.seeds, *plan.frame.best_seeds])))


def _of(records: Records, task: str) -> list[Record]:
    return [record for cell, record in records.items() if cell.task == task]


def _picture(pictures: Sequence[str], name: str, words: str) -> str:
    path = f"{PICTURES}/{name}"
    return f"![{words}]({path})" if path in pictures else ""


def _place(record: Record) -> str:
    machine = record["machine"]
    memory = f", {machine['memory_bytes'] / 1e9:.0f} GB of memory" if machine.get("memory_bytes") else ""
    gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
    return f"{machine['cpu']}, {machine['cores']} cores{memory}{gpu}, {machine['system']}"


def _versions(record: Record) -> str:
    return ", ".join(f"{name} {value}" for name, value in record["versions"].items() if value)


def _unique(texts: Iterable[str]) -> list[str]:
    return sorted(set(texts))

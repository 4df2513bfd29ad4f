"""The plan of a sweep: which mechanisms on which tasks from which seeds, read from one TOML file.

A plan has two stages. First every mechanism is trained on the tasks whose `mechanisms` is `all`. Then the best of
them, by validation, and dense attention are trained from more seeds on these and on the tasks whose `mechanisms` is
`best`. The tables `[model]` and `[training]` hold for every task, and a task changes what it has to.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from saccade import config
from saccade.attention import MECHANISMS, to_mechanism
from saccade.bench.choice import BASELINE
from saccade.config import Source
from saccade.errors import must_be, unknown, whole_number
from saccade.tasks import Recipe

FOLDER = "{data_folder}"
"""Stands for the plan's `data_folder` in the paths of a task, so that no record knows where somebody's data lie."""

TABLES = ("options", "data", "model", "training", "tasks")
OF_A_TASK = ("mechanisms", "data", "model", "training")
STAGES = ("all", "best")


@dataclass(frozen=True)
class Frame:
    """What a plan says of all its tasks.

    Attributes:
        mechanisms: `all`, the whole list, or a list of names and expressions.
        best: how many mechanisms besides dense attention reach the second stage.
        seeds: of the first stage.
        best_seeds: of the second stage.
        threads: of each training, a process of its own; a score depends on it by rounding.
        speed_threads: of the measurement of speed.
        rounds: in which a mechanism and dense attention take turns.
        data_folder: what `{data_folder}` stands for in the paths of a task.
    """

    mechanisms: Literal["all"] | tuple[str, ...] = "all"
    best: int = 4
    seeds: tuple[int, ...] = (0,)
    best_seeds: tuple[int, ...] = (0, 1, 2)
    threads: int = 1
    speed_threads: int = 2
    rounds: int = 7
    data_folder: str = "."

    def __post_init__(self) -> None:
        for name in ("threads", "speed_threads", "rounds"):
            whole_number(name, getattr(self, name))
        whole_number("best", self.best, 0)
        for name in ("seeds", "best_seeds"):
            seeds = getattr(self, name)
            if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
                raise ValueError(must_be(name, "at least one, each at least 0 and each only once", list(seeds)))


@dataclass(frozen=True)
class Cell:
    """One piece of a sweep, which leaves one record.

    Attributes:
        task: a name in the plan.
        mechanism: its expression.
        seed: what is trained from; `None` for the measurement of speed and memory.
    """

    task: str
    mechanism: str
    seed: int | None

    def __str__(self) -> str:
        return f"{self.task}, {self.mechanism}, {'speed' if self.seed is None else f'seed {self.seed}'}"


@dataclass(frozen=True)
class Plan:
    """A whole plan.

    Attributes:
        frame: what holds for all tasks.
        mechanisms: the expressions of the first stage, dense attention first.
        recipes: each task's recipe, whose mechanism and seed do not matter.
        stages: each task's `all` or `best`.
    """

    frame: Frame
    mechanisms: tuple[str, ...]
    recipes: dict[str, Recipe]
    stages: dict[str, str]

    def tasks(self, stage: str) -> list[str]:
        """The names of the tasks of a stage, `all` or `best`."""
        return [name for name, own in self.stages.items() if own == stage]

    def first(self) -> list[Cell]:
        """The trainings of the first stage."""
        return cells(self.tasks("all"), self.mechanisms, self.frame.seeds)

    def second(self, chosen: Sequence[str]) -> list[Cell]:
        """The trainings of the second stage, once the best are known; those that the first has made are among them."""
        mechanisms = [name for name in self.mechanisms if name == BASELINE or name in chosen]
        return cells(self.stages, mechanisms, self.frame.best_seeds)

    def speeds(self, chosen: Sequence[str]) -> list[Cell]:
        """The measurements of speed: of each task and each mechanism that is trained on it."""
        trained = [*self.first(), *self.second(chosen)]
        return list(dict.fromkeys(replace(cell, seed=None) for cell in trained))

    def whole(self, chosen: Sequence[str]) -> set[Cell]:
        """All cells, of both stages and of speed."""
        return {*self.first(), *self.second(chosen), *self.speeds(chosen)}

    @property
    def size(self) -> int:
        """How many cells there are at the end, whoever reaches the second stage."""
        return len(self.whole([name for name in self.mechanisms if name != BASELINE][: self.frame.best]))

    def recipe(self, cell: Cell) -> Recipe:
        """The recipe of one cell, in which `{data_folder}` still stands."""
        recipe = self.recipes[cell.task]
        seed = recipe.training.seed if cell.seed is None else cell.seed
        return replace(
            recipe,
            model=replace(recipe.model, mechanism=cell.mechanism),
            training=replace(recipe.training, seed=seed),
        )

    def settings(self, cell: Cell) -> dict[str, Any]:
        """All that decides what a cell finds, but for machine and versions."""
        if cell.seed is None:
            kind = {"threads": self.frame.speed_threads, "rounds": self.frame.rounds}
        else:
            kind = {"threads": self.frame.threads}
        return {**kind, **asdict(self.recipe(cell))}

    def located(self, recipe: Recipe) -> Recipe:
        """The recipe with the data's folder put in."""
        data, folder = recipe.data, self.frame.data_folder
        paths = {name: getattr(data, name) for name in ("source", "validation", "test")}
        found = {name: path and path.replace(FOLDER, folder) for name, path in paths.items()}
        return replace(recipe, data=replace(data, **found))


def cells(tasks: Iterable[str], mechanisms: Iterable[str], seeds: Iterable[int | None]) -> list[Cell]:
    """All of them with each other, task by task."""
    mechanisms, seeds = list(mechanisms), list(seeds)
    return [Cell(task, mechanism, seed) for task in tasks for mechanism in mechanisms for seed in seeds]


def read_plan(path: Path, overrides: Sequence[str] = ()) -> Plan:
    """The plan in a TOML file, with overrides such as `"tasks.stdlib.training.steps=50"`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown key, mechanism or stage, no task, or a value that does not fit; the message says where.
    """
    source = config.read(path, overrides)
    frame = config.build(_without(source, TABLES), Frame)
    tasks = source.values.get("tasks", {})
    if not isinstance(tasks, dict) or not tasks:
        raise ValueError(f"{source.origin('tasks')}: {must_be('tasks', 'at least one table [tasks.NAME]', tasks)}")
    return Plan(
        frame,
        _mechanisms(frame, source),
        {name: _recipe(source, name) for name in tasks},
        {name: _stage(source, name) for name in tasks},
    )


def canonical(mechanism: str) -> str:
    """The expression by which a mechanism is known in records.

    Raises:
        ValueError: there is no such mechanism.
    """
    return str(to_mechanism(mechanism))


def _mechanisms(frame: Frame, source: Source) -> tuple[str, ...]:
    """Expressions, dense attention first; of a name alone with the options that the plan gives it."""
    options = _table(source, source.values, "options", "")
    for name in options:
        if name not in MECHANISMS:
            raise ValueError(f"{source.origin(f'options.{name}')}: {unknown('mechanism', name, MECHANISMS)}")
    names = list(MECHANISMS) if frame.mechanisms == "all" else frame.mechanisms
    return tuple(dict.fromkeys(_expression(source, options, name) for name in (BASELINE, *names)))


def _expression(source: Source, options: dict[str, Any], name: str) -> str:
    try:
        return canonical(options.get(name, name))
    except (ValueError, TypeError) as error:
        where = source.origin(f"options.{name}" if name in options else "mechanisms")
        raise ValueError(f"{where}: {error}") from None


def _recipe(source: Source, name: str) -> Recipe:
    """The recipe of a task: its own tables over those of the plan."""
    prefix = f"tasks.{name}."
    task = _table(source, source.values["tasks"], name, "tasks.")
    for key in task:
        if key not in OF_A_TASK:
            raise ValueError(f"{source.origin(prefix + key)}: {unknown('key', key, OF_A_TASK)}")
    tables = {
        key: {**_table(source, source.values, key, ""), **_table(source, task, key, prefix)}
        for key in ("data", "model", "training")
    }
    own = {key.removeprefix(prefix): where for key, where in source.origins.items() if key.startswith(prefix)}
    return config.build(Source(tables, source.name, {**source.origins, **own}), Recipe)


def _table(source: Source, values: dict[str, Any], key: str, prefix: str) -> dict[str, Any]:
    found = values.get(key, {})
    if not isinstance(found, dict):
        raise ValueError(f"{source.origin(prefix + key)}: {must_be(prefix + key, 'a table', found)}")
    return found


def _stage(source: Source, name: str) -> str:
    stage = source.values["tasks"][name].get("mechanisms", "all")
    if stage not in STAGES:
        where = source.origin(f"tasks.{name}.mechanisms")
        raise ValueError(f"{where}: {unknown(f'tasks.{name}.mechanisms', str(stage), STAGES)}")
    return stage


def _without(source: Source, tables: Sequence[str]) -> Source:
    known = {key: value for key, value in source.values.items() if key not in tables}
    for key in known:
        names = [*(each.name for each in fields(Frame)), *tables]
        if key not in names:
            raise ValueError(f"{source.origin(key)}: {unknown('key', key, names)}")
    return Source(known, source.name, source.origins)

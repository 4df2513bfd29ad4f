"""The command line: each command reads its options and calls one function.

What a user can get wrong is one line on stderr and an exit code, never a traceback (but with `--debug`):
2 for input that cannot be, 1 for a run or a check that failed, 130 for Ctrl-C.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from saccade import cli_bench
from saccade._version import __version__
from saccade.attention import MECHANISMS, Mechanism, to_mechanism
from saccade.bench import plots, terminal
from saccade.bench.show import gallery, look
from saccade.checking import check as check_target
from saccade.checking import load_target
from saccade.claims import PROBES
from saccade.errors import must_be

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
NEEDS_TRAIN = ("accelerate", "datasets", "psutil", "safetensors")

app = typer.Typer(
    help="Which attention, how fast, how good, on your data and machine?",
    epilog="Example: saccade compare --mechanisms 'full, local(left=64), linear' --length 1024",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe; repeat at will.")
]


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns:
        The exit code.
    """
    debug = "--debug" in arguments or os.environ.get("SACCADE_DEBUG", "") not in ("", "0")
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return app(arguments, prog_name="saccade", standalone_mode=False) or 0
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        return _explain(error)


def _explain(error: Exception) -> int:
    """One line about what went wrong, and the exit code it stands for."""
    # What the parser raises has this, whichever parser typer has inside.
    if (message := getattr(error, "format_message", None)) is not None:
        context = getattr(error, "ctx", None)
        hint = f"\ntry: {context.command_path} --help" if context else ""
        return _say(f"error: {message()}{hint}", BAD_INPUT)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in NEEDS_TRAIN:
        return _say(f"error: this command needs {error.name}: pip install 'saccade[train]'", BAD_INPUT)
    text = str(error).strip()
    if type(error).__name__ == "Interrupted":
        return _say(text, INTERRUPTED)
    bad = (ValueError, TypeError, ImportError, FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError)
    if isinstance(error, bad):
        return _say(f"error: {text}", BAD_INPUT)
    if isinstance(error, OSError | FloatingPointError | MemoryError):
        return _say(f"error: {text}", FAILED)
    return _say(f"error: {type(error).__name__}: {text} (add --debug for the traceback)", FAILED)


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"{text}\n")
    return code


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _version(wanted: bool) -> bool:
    if wanted:
        _print(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; so does SACCADE_DEBUG=1.")
    ] = False,
) -> None:
    """What goes before the command; `run` has read `--debug` already."""


@app.command(
    epilog="Example: saccade show 'big_bird(block=8)' --length 128 --out big_bird.png; saccade show runs/first"
)
def show(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MECHANISM]... | RUN [PATTERN]...",
            help="Names, expressions or patterns, such as 'Local(8) | Global(2)'; `all` for every one; none to list "
            "the names. Or the folder of a trained run, and patterns to weigh in place of the usual ones.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Draw into this .png or .svg file instead.")] = None,
    length: Annotated[
        int | None,
        typer.Option(
            help="Queries and keys; otherwise the shortest power of two at which most pairs are left out. "
            "Of a run: where longer examples are cut; otherwise at 1,024."
        ),
    ] = None,
    causal: Annotated[bool, typer.Option("--causal", help="Hide later keys.")] = False,
    heads: Annotated[int | None, typer.Option(help="Draw so many heads, where they differ; otherwise 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the inputs, where weights depend on the content.")] = None,
    examples: Annotated[int | None, typer.Option(help="Of a run: how many to read; otherwise 16.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a run: train, validation or test, otherwise test.")] = None,
    grid: Annotated[
        str | None,
        typer.Option(metavar="HEIGHTxWIDTH", help="Of a run whose examples are such grids, row by row: heat maps."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Of a run: print one JSON object.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Who looks at whom: draw the attention of mechanisms, or what the heads of a trained run look at.

    Of a run it shows the mean weights of each head, how much of the weight each pattern would keep, and whether the
    weights are low rank: the evidence for choosing a cheaper attention.
    """
    if not what:
        _print(_names())
        return
    is_run = what[0] not in (*MECHANISMS, "all") and Path(what[0]).is_dir()
    of_mechanisms = _given(causal=causal or None, heads=heads, seed=seed)
    of_a_run = _given(examples=examples, split=split, grid=grid, json=as_json or None)
    if foreign := of_mechanisms if is_run else of_a_run:
        kind = "mechanisms, not for a run" if is_run else "a run, not for mechanisms"
        raise typer.BadParameter(f"--{min(foreign)} is for {kind}")
    if out is not None:
        plots.check_path(out, overwrite)
    if is_run:
        from saccade.bench.show_run import show_run

        reading = _given(examples=examples, split=split, length=length)
        show_run(Path(what[0]), what[1:], out=out, grid=grid, as_json=as_json, reading=reading)
        return
    if what == ["all"]:
        views = gallery(length, **of_mechanisms)
    else:
        views = [look(_known(each), length, **of_mechanisms) for each in what]
    if out is not None:
        plots.save(plots.views_figure(views), out)
        _print(f"wrote {out}")
        return
    for number, view in enumerate(views):
        if number:
            _print("")
        terminal.draw(view, Console())


def _given(**options: Any) -> dict[str, Any]:
    """The options that the user has set."""
    return {name: value for name, value in options.items() if value is not None}


def _known(text: str) -> Mechanism:
    """The mechanism; where it is unknown, the error says that there is no such folder either."""
    try:
        return to_mechanism(text)
    except ValueError as error:
        if "(" in text:
            raise
        raise ValueError(f"{error}; and there is no folder of a run at that path") from None


def _names() -> str:
    """The mechanisms with what each is, from the first line of its documentation."""
    width = max(map(len, MECHANISMS))
    lines = (f"{name:<{width}}  {(spec.__doc__ or '').partition(chr(10))[0]}" for name, spec in MECHANISMS.items())
    return "\n".join(lines)


app.command(epilog="Example: saccade cost full 'local(left=64)' --width 768 --heads 12 --layers 12 --out share.png")(
    cli_bench.cost
)
app.command(epilog="Example: saccade bench full 'local(left=64)' linear --lengths 512,2048,8192 --causal")(
    cli_bench.bench
)


@app.command(epilog="Example: saccade compare --mechanisms 'full, local(left=64), linear' --data reviews.csv")
def compare(
    mechanisms: Annotated[
        str | None,
        typer.Option(help="With commas between them. Otherwise full, local(left=64), big_bird(block=32), linear."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="stdlib (the default), listops, a .jsonl or .csv file, or hub:NAME.")
    ] = None,
    length: Annotated[int | None, typer.Option(help="Bytes of an example; longer ones are cut.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of each mechanism.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples in a step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, batches and dropout.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Start from this TOML file.")] = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for report, records and picture. Otherwise runs/compare-TIME.")
    ] = None,
    baseline: Annotated[
        bool, typer.Option(help="Include dense attention (`full`), next to which speeds are given.")
    ] = True,
) -> None:
    """Train and score mechanisms with equal steps, seed and data, and say which to choose.

    Without options: full, local, big_bird and linear attention in a small model, on passages of 1,024 bytes from
    the sources of Python's standard library; some five minutes on two cores. Ctrl-C keeps what is done.
    """
    from saccade.bench.compare import DEFAULT_MECHANISMS, REPORT, comparison_recipe
    from saccade.bench.compare import compare as run_comparison
    from saccade.bench.live import live

    given = {
        "data.source": data,
        "data.length": length,
        "training.steps": steps,
        "training.batch_size": batch_size,
        "training.seed": seed,
    }
    chosen = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    settings = comparison_recipe(recipe, [*chosen, *(overrides or [])])
    out = out or Path("runs") / time.strftime("compare-%Y%m%d-%H%M%S")
    with live(Console(stderr=True)) as on_change:
        found = run_comparison(
            settings,
            DEFAULT_MECHANISMS if mechanisms is None else mechanisms,
            out,
            baseline=baseline,
            on_change=on_change,
        )
    _print((out / REPORT).read_text(encoding="utf-8"))
    _print(f"everything is in {out}")
    if found.stopped:
        raise typer.Exit(INTERRUPTED)
    if all(row.status == "failed" for row in found.rows):
        raise typer.Exit(FAILED)


@app.command(epilog="Example: saccade train recipes/stdlib.toml --set model.mechanism=big_bird --out runs/big_bird")
def train(
    recipe: Annotated[Path | None, typer.Argument(help="A TOML file with task, data, model and training.")] = None,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="A new folder for the run. Otherwise runs/NAME-TIME.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Continue this run instead.")] = None,
) -> None:
    """Train the model of a recipe, or continue a run that was stopped."""
    from saccade.tasks import TASKS, load_recipe, recipe_of

    if (recipe is None) == (resume is None) or (resume is not None and (overrides or out)):
        raise typer.BadParameter("give a RECIPE, with --set and --out if you like, or --resume DIR alone")
    if resume is not None:
        metrics = TASKS[recipe_of(resume).task].resume(resume)
        out = resume
    else:
        settings = load_recipe(recipe, overrides or [])
        out = out or Path("runs") / f"{recipe.stem if recipe else ''}{time.strftime('-%Y%m%d-%H%M%S')}"
        metrics = TASKS[settings.task].train(settings, out)
    _print(_metrics_text(metrics))
    _print(f"everything is in {out}")


@app.command(epilog="Example: saccade evaluate runs/big_bird --data reviews.csv")
def evaluate(
    run_folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run that `saccade train` has finished.")],
    data: Annotated[str | None, typer.Option(help="Other data than the run's own, such as a file.")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, validation or test (the default). Another file is scored whole.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the data, such as data.length=512."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score the model of a run."""
    from saccade.tasks import TASKS, other_data, recipe_of

    settings = other_data(run_folder, data, overrides or [])
    metrics = TASKS[recipe_of(run_folder).task].evaluate(run_folder, settings, split)
    _print(json.dumps(metrics, indent=2) if as_json else _metrics_text(metrics))


def _metrics_text(metrics: dict[str, Any]) -> str:
    """Scores in words: accuracies as percentages."""
    shares = {name: f"{metrics[name]:.1%}" for name in ("accuracy", "half_width", "majority_share")}
    texts = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in metrics.items()}
    texts |= {"accuracy": f"{shares['accuracy']} ± {shares['half_width']}", "majority_share": shares["majority_share"]}
    return "\n".join(f"{name.replace('_', ' ')}: {text}" for name, text in texts.items() if name != "half_width")


def _probes(wanted: bool) -> bool:
    if wanted:
        width = max(len(probe.name) for probe in PROBES)
        _print("\n".join(f"{probe.name:<{width}}  {probe.shows}" for probe in PROBES))
        raise typer.Exit
    return wanted


@contextlib.contextmanager
def _nothing_on_stdout() -> Iterator[None]:
    """Send all that a target prints to stderr, its subprocesses and extensions too, so that JSON stays JSON."""
    stdout, stderr = 1, 2
    with contextlib.redirect_stdout(sys.stderr):
        kept = os.dup(stdout)
        os.dup2(stderr, stdout)
        try:
            yield
        finally:
            os.dup2(kept, stdout)
            os.close(kept)


@app.command(epilog="Example: saccade check my_package.attention:MyAttention --on x --json")
def check(
    target: Annotated[
        str, typer.Argument(help="package.module:name of yours, or a mechanism such as 'local(left=8)'.")
    ],
    on: Annotated[str, typer.Option(help="What it takes: `qkv`, or `x` for a module on the model width.")] = "qkv",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of results and nothing else.")] = False,
    causal: Annotated[
        bool | None,
        typer.Option(help="It is always causal; or its causality is not to be checked. Otherwise its signature says."),
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Model width, or head dim on qkv, that a class is built with.")
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(metavar="PROBE", help="Leave out what it is not meant to keep, such as weights; repeat at will."),
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", callback=_probes, is_eager=True, help="Print what each probe shows.")
    ] = False,
) -> None:
    """Look for leaks in any attention: of the future, the padding, the batch, NaN, and in gradients.

    And for chunks and decoding steps that are not the whole, an order of keys that matters, and weights that are none.
    The exit code is 1 if a probe failed.
    """
    with _nothing_on_stdout():
        claims = None
        if ":" in target:
            attention = load_target(target)
        else:
            spec = to_mechanism(target)
            if on != "qkv":
                raise ValueError(must_be("on", "qkv for a mechanism", on))
            # Values of another dim than keys, so that neither is taken for the other.
            claims, attention = spec.claims, spec.build(heads=2, head_dim=width or 8, value_dim=5)
        report = check_target(attention, on=on, claims=claims, causal=causal, width=width, skip=skip or ())
    _print(report.to_json() if as_json else report.table())
    if not report.passed:
        raise typer.Exit(FAILED)

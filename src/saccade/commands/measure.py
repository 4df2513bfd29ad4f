"""The commands `cost` and `bench`: what mechanisms take by their formulas, and on this machine."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from saccade.bench import plots
from saccade.bench.choice import BASELINE, read_lengths, read_mechanisms
from saccade.bench.model_cost import Shape
from saccade.commands.output import FAILED, INTERRUPTED
from saccade.errors import must_be

COST_EXAMPLE = "saccade cost full 'local(left=64)' --width 768 --heads 12 --layers 12 --out share.png"
BENCH_EXAMPLE = "saccade bench full 'local(left=64)' linear --lengths 512,2048,8192 --causal"
DEFAULT_MECHANISMS = ("full", "local", "big_bird", "linear")

Mechanisms = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MECHANISM]...",
        help="Names, expressions or patterns, such as 'Local(8) | Global(2)'. Otherwise full, local, big_bird, linear.",
    ),
]
Causal = Annotated[bool, typer.Option("--causal", help="Hide later keys.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def cost(
    mechanisms: Mechanisms = None,
    lengths: Annotated[str, typer.Option(help="With commas between them.")] = "512,2048,8192,32768",
    width: Annotated[int | None, typer.Option(help="The model width: 512.")] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads: 8.")] = None,
    layers: Annotated[int | None, typer.Option(help="Layers: 6.")] = None,
    hidden: Annotated[int | None, typer.Option(help="Width inside the feed-forward networks: 4 widths.")] = None,
    kv_heads: Annotated[int | None, typer.Option(help="Heads of keys and values: as many as heads.")] = None,
    vocabulary: Annotated[int | None, typer.Option(help="Rows of an embedding in front: none.")] = None,
    classes: Annotated[int | None, typer.Option(help="Outputs of a classifier behind: none.")] = None,
    extra_tokens: Annotated[int | None, typer.Option(help="Learned global tokens in front: none.")] = None,
    batch: Annotated[int, typer.Option(help="Examples.")] = 1,
    causal: Causal = False,
    recipe: Annotated[
        Path | None, typer.Option(help="Take the model of this TOML file: its sizes and its mechanism beside full.")
    ] = None,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Draw attention's share into this .png or .svg file too.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    layer_types: Annotated[
        bool, typer.Option("--layer-types", help="Instead: attention, recurrent and convolutional layers side by side.")
    ] = False,
    radius: Annotated[int, typer.Option(help="Of restricted attention, with --layer-types.")] = 64,
    kernel: Annotated[int, typer.Option(help="Of convolutions, with --layer-types.")] = 3,
) -> None:
    """Operations and memory of a whole model over the length, and from where attention takes the most.

    Counted, not measured. Without options: the base model of "Attention Is All You Need".
    """
    from saccade.bench import cost_report

    if layer_types:
        whole_model: dict[str, object] = {
            "MECHANISM": mechanisms,
            "--heads": heads,
            "--layers": layers,
            "--hidden": hidden,
            "--kv-heads": kv_heads,
            "--vocabulary": vocabulary,
            "--classes": classes,
            "--extra-tokens": extra_tokens,
            "--causal": causal or None,
            "--recipe": recipe,
            "--out": out,
        }
        _refuse_beside("--layer-types", whole_model)
        _layer_types(lengths, width, radius, kernel, as_json)
        return
    if out is not None:
        plots.check_path(out, overwrite)
    shape, own = _of_recipe(recipe)
    given = {
        "width": width,
        "heads": heads,
        "layers": layers,
        "hidden": hidden,
        "kv_heads": kv_heads,
        "vocabulary": vocabulary,
        "classes": classes,
        "extra_tokens": extra_tokens,
    }
    shape = replace(shape, **{name: value for name, value in given.items() if value is not None})
    specs = read_mechanisms(mechanisms or own, baseline=False)
    found = cost_report.costs(specs, read_lengths(lengths), shape, batch=batch, causal=causal)
    if out is not None:
        plots.save(cost_report.cost_figure(found), out)
    if as_json:
        sys.stdout.write(f"{cost_report.to_json(found)}\n")
        return
    wrote = [] if out is None else [f"wrote {out}"]
    told = [cost_report.heading(found), cost_report.table(found), *cost_report.sentences(found), ""]
    _show(*told, Text(cost_report.NOTE, "dim"), *wrote)


def _layer_types(lengths: str, width: int | None, radius: int, kernel: int, as_json: bool) -> None:
    """Table 1 of "Attention Is All You Need" at these sizes."""
    from saccade.bench import layer_types

    sizes = layer_types.Sizes(512 if width is None else width, radius, kernel)
    if as_json:
        sys.stdout.write(f"{layer_types.to_json(read_lengths(lengths), sizes)}\n")
        return
    _show(layer_types.table(read_lengths(lengths), sizes), Text(layer_types.NOTE, "dim"))


def _refuse_beside(option: str, others: dict[str, object]) -> None:
    """Refuse what would be ignored beside an option."""
    for name, value in others.items():
        if value is not None:
            raise ValueError(must_be(name, f"left out with {option}, which does not read it", value))


def _console(stderr: bool = False) -> Console:
    """Where to print; expressions hold brackets, which are no markup."""
    return Console(stderr=stderr, highlight=False, markup=False)


def _show(*told: RenderableType) -> None:
    """Print tables as wide as the terminal; paths and sentences stay in one piece."""
    console = _console()
    for each in told:
        console.print(each, soft_wrap=isinstance(each, str))


def _of_recipe(path: Path | None) -> tuple[Shape, tuple[str, ...]]:
    """The sizes of the model in a recipe, and dense attention beside its mechanisms."""
    if path is None:
        return Shape(), DEFAULT_MECHANISMS
    from saccade.tasks import classification_recipe

    model = classification_recipe(path).model
    own = (model.mechanism,) if isinstance(model.mechanism, str) else model.mechanism
    shape = Shape(
        model.width,
        model.heads,
        model.layers,
        model.hidden,
        norm=model.norm,
        dropout=model.dropout > 0,
        extra_tokens=model.extra_tokens,
    )
    return shape, tuple(dict.fromkeys((BASELINE, *own)))


def bench(
    mechanisms: Mechanisms = None,
    lengths: Annotated[str, typer.Option(help="With commas between them.")] = "256,512,1024,2048,4096,8192",
    heads: Annotated[int, typer.Option(help="Query heads.")] = 8,
    head_dim: Annotated[int, typer.Option(help="Dim of one query, key or value.")] = 64,
    batch: Annotated[int, typer.Option(help="Examples.")] = 1,
    causal: Causal = False,
    dtype: Annotated[str, typer.Option(help="fp32, bf16, fp16 or fp64.")] = "fp32",
    rounds: Annotated[int, typer.Option(help="At most so many at each length.")] = 15,
    seconds: Annotated[float, typer.Option(help="For the rounds of one length; three are made in any case.")] = 8.0,
    threads: Annotated[int | None, typer.Option(help="Of torch; as many as it takes by itself, if not given.")] = None,
    forward_only: Annotated[bool, typer.Option("--forward-only", help="Leave the backward pass out.")] = False,
    seed: Annotated[int, typer.Option(help="Of the inputs.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for records and picture. Otherwise runs/bench-TIME.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time, memory and error of attention over lengths, next to dense attention in the same rounds.

    Without options: full, local, big_bird and linear attention; some two minutes on two cores. Ctrl-C keeps what is
    done.
    """
    import torch

    from saccade.bench import speed_report
    from saccade.bench.benchmark import PICTURE, benchmark
    from saccade.bench.follow import follow
    from saccade.bench.speed import Setting

    if threads is not None and threads < 1:
        raise ValueError(must_be("threads", "at least 1", threads))
    torch.set_num_threads(threads or torch.get_num_threads())
    setting = Setting(read_lengths(lengths), heads, head_dim, batch, causal, dtype, rounds, seconds, forward_only, seed)
    specs = read_mechanisms(mechanisms or DEFAULT_MECHANISMS)
    out = out or Path("runs") / time.strftime("bench-%Y%m%d-%H%M%S")
    with follow(_console(stderr=True), speed_report.progress_table) as on_change:
        found = benchmark(specs, setting, out, on_change=on_change)
    if as_json:
        sys.stdout.write(json.dumps(speed_report.to_records(found), indent=2) + "\n")
    else:
        told = [speed_report.heading(found), speed_report.table(found), *speed_report.sentences(found), ""]
        missing = [] if (out / PICTURE).is_file() else ["no picture: that needs pip install 'saccade[plots]'"]
        _show(*told, Text(speed_report.NOTE, "dim"), *missing, f"everything is in {out}")
    if found.stopped:
        raise typer.Exit(INTERRUPTED)
    if not any(row.status == "done" for row in found.rows.values()):
        raise typer.Exit(FAILED)

"""The commands `cost` and `bench`: what mechanisms take by their formulas, and on this machine."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from saccade.bench import plots
from saccade.bench.choice import BASELINE, read_lengths, read_mechanisms
from saccade.bench.model_cost import Shape

INTERRUPTED = 130
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
    batch: Annotated[int, typer.Option(help="Examples.")] = 1,
    causal: Causal = False,
    recipe: Annotated[
        Path | None, typer.Option(help="Take the model of this TOML file: its sizes and its mechanism beside full.")
    ] = None,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Draw attention's share into this .png or .svg file too.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Operations and memory of a whole model over the length, and from where attention takes the most.

    Counted, not measured. Without options: the base model of "Attention Is All You Need".
    """
    from saccade.bench import cost_report

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
    }
    shape = replace(shape, **{name: value for name, value in given.items() if value is not None})
    specs = read_mechanisms(mechanisms or own, baseline=False)
    found = cost_report.costs(specs, read_lengths(lengths), shape, batch=batch, causal=causal)
    if out is not None:
        plots.save(cost_report.cost_figure(found), out)
    if as_json:
        sys.stdout.write(f"{cost_report.to_json(found)}\n")
        return
    console = Console(highlight=False, soft_wrap=False)
    console.print(cost_report.heading(found))
    console.print(cost_report.table(found))
    console.print(*cost_report.sentences(found), sep="\n")
    console.print(f"\n{cost_report.NOTE}", style="dim")
    if out is not None:
        console.print(f"wrote {out}")


def _of_recipe(path: Path | None) -> tuple[Shape, tuple[str, ...]]:
    """The sizes of the model in a recipe, and dense attention beside its mechanisms."""
    if path is None:
        return Shape(), DEFAULT_MECHANISMS
    from saccade.tasks import load_recipe

    model = load_recipe(path).model
    own = (model.mechanism,) if isinstance(model.mechanism, str) else model.mechanism
    shape = Shape(model.width, model.heads, model.layers, model.hidden, norm=model.norm, dropout=model.dropout > 0)
    return shape, tuple(dict.fromkeys((BASELINE, *own)))

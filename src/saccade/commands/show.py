"""`saccade show`: who looks at whom, by a mechanism's pattern or in a trained model; and what positions do."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from saccade.attention import MECHANISMS, Mechanism, to_mechanism
from saccade.bench import plots, terminal
from saccade.bench.positions import draw_positions, look_at_positions, positions_figure
from saccade.bench.show import gallery, look
from saccade.bench.terminal import MOST_CELLS
from saccade.commands.output import say

POSITIONS_WORD = "positions"
EXAMPLE = "saccade show 'big_bird(block=8)' --length 128 --out big_bird.png; saccade show runs/first"


def show(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MECHANISM]... | RUN [PATTERN]... | positions [NAME]...",
            help="Names, expressions or patterns, such as 'Local(8) | Global(2)'; `all` for every one; none to list "
            "the names. Or the folder of a trained run, and patterns to weigh in place of the usual ones. Or "
            "`positions`: how tokens learn where they stand, side by side.",
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
    heads: Annotated[int | None, typer.Option(help="Draw so many heads; otherwise one, or one of each part.")] = None,
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
        say(_names())
        return
    of_mechanisms = _given(causal=causal or None, heads=heads, seed=seed)
    of_a_run = _given(examples=examples, split=split, grid=grid, json=as_json or None)
    if what[0] == POSITIONS_WORD:
        if foreign := (of_mechanisms | of_a_run).keys() - {"seed"}:
            raise typer.BadParameter(f"--{min(foreign)} is not for positions")
        _show_positions(what[1:], out, overwrite, _given(length=length, seed=seed))
        return
    is_run = what[0] != "all" and what[0] not in MECHANISMS and Path(what[0]).is_dir()
    if foreign := of_mechanisms if is_run else of_a_run:
        kind = "mechanisms, not for a run" if is_run else "a run, not for mechanisms"
        raise typer.BadParameter(f"--{min(foreign)} is for {kind}")
    if out is not None:
        plots.check_path(out, overwrite)
    if is_run:
        from saccade.bench.evidence.show_run import show_run

        reading = _given(examples=examples, split=split, length=length)
        show_run(Path(what[0]), what[1:], out=out, grid=grid, as_json=as_json, reading=reading)
        return
    if what == ["all"]:
        views = gallery(length, **of_mechanisms)
    else:
        views = [look(_known(each), length, **of_mechanisms) for each in what]
    if out is not None:
        plots.save(plots.views_figure(views), out)
        say(f"wrote {out}")
        return
    for number, view in enumerate(views):
        if number:
            say("")
        terminal.draw(view, Console())


def _show_positions(names: list[str], out: Path | None, overwrite: bool, options: dict[str, int]) -> None:
    if out is not None:
        plots.check_path(out, overwrite)
    if out is None:
        # One column for each position.
        draw_positions(look_at_positions(names, **{"length": MOST_CELLS, **options}), Console())
        return
    views = look_at_positions(names, **options)
    plots.save(positions_figure(views), out)
    say("\n".join([f"wrote {out}", *(f"left out: {name}, {reason}" for name, reason in views.left_out.items())]))


def _given(**options: Any) -> dict[str, Any]:
    """The options that the user has set."""
    return {name: value for name, value in options.items() if value is not None}


def _known(text: str) -> Mechanism:
    """The mechanism; where it is unknown, the error says that there is no such folder either."""
    try:
        return to_mechanism(text)
    except ValueError as error:
        if "(" in text or text in MECHANISMS.broken:
            raise
        raise ValueError(f"{error}; and there is no folder of a run at that path") from None


def _names() -> str:
    """The mechanisms with what each is, from the first line of its documentation, and plug-ins that cannot be used."""
    broken = {name: f"left out: {reason}" for name, reason in MECHANISMS.broken.items()}
    known = {name: (spec.__doc__ or "").partition("\n")[0] for name, spec in MECHANISMS.items()}
    width = max(map(len, (*known, *broken)))
    return "\n".join(f"{name:<{width}}  {told}" for name, told in (*known.items(), *broken.items()))

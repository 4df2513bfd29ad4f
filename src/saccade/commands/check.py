"""`saccade check`: look for leaks in any attention."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from saccade.attention import to_mechanism
from saccade.attention.gates_from_keys import GatesFromKeys
from saccade.checking import check as check_target
from saccade.checking import load_target
from saccade.claims import PROBES
from saccade.commands.output import FAILED, say
from saccade.errors import must_be

EXAMPLE = "saccade check my_package.attention:MyAttention --on x --json"


def _probes(wanted: bool) -> bool:
    if wanted:
        width = max(len(probe.name) for probe in PROBES)
        say("\n".join(f"{probe.name:<{width}}  {probe.shows}" for probe in PROBES))
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
            if "gate" in spec.inputs:
                attention = GatesFromKeys(attention)
        report = check_target(attention, on=on, claims=claims, causal=causal, width=width, skip=skip or ())
    say(report.to_json() if as_json else report.table())
    if not report.passed:
        raise typer.Exit(FAILED)

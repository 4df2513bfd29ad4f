"""A view in the terminal, in what the terminal can do: painted half blocks, shaded blocks, or plain ASCII."""

from itertools import zip_longest

from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from saccade.bench.shades import cells, ink, mix, pooled
from saccade.bench.show import View
from saccade.shapes import Float, Tensor

MOST_CELLS = 64
FRAME = 2
UNICODE_RAMP = " ·░▒▓█"
ASCII_RAMP = " .:+*#"
HALVES = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


def draw(view: View, console: Console) -> None:
    """Print the picture with its title, head by head, as wide as the terminal allows."""
    unicode = speaks_unicode(console)
    facts, arrow, down = (view.facts, "→", "↓") if unicode else (_ascii(view.facts), "->", "v")
    console.print(Text(view.title, style="bold"), Text(facts), sep="\n")
    for name, strength in zip(view.names, view.strength, strict=True):
        which = f"{name}: " if name else ""
        console.print(Text(f"{which}keys {arrow} queries {down}", style="italic"))
        console.print(_picture(strength, console, unicode), no_wrap=True, overflow="ignore", crop=True)
    console.print(Text(view.note))


def shades(levels: Float[Tensor, "r c"], console: Console) -> Text:
    """A small picture of levels from 0 to 1: painted, or else one character for two rows.

    Levels may be below zero, down to -1: unpainted, blank is then -1.
    """
    unicode = speaks_unicode(console)
    if unicode and _paints(console):
        return _painted(levels)
    ramp, bar = (UNICODE_RAMP, "│") if unicode else (ASCII_RAMP, "|")
    levels = (levels + 1) / 2 if bool((levels < 0).any()) else levels
    return _framed(_shaded(pooled(levels, -(-len(levels) // 2), levels.shape[1]), ramp), bar)


def _picture(strength: Float[Tensor, "n n"], console: Console, unicode: bool) -> Text:
    side = cells(len(strength), max(1, min(MOST_CELLS, console.width - FRAME)))
    levels = ink(strength, side, side)
    if unicode and _paints(console):
        return _painted(levels)
    if unicode and bool(((levels == 0) | (levels == 1)).all()):
        return _framed(_halved(levels), "│")
    ramp, bar = (UNICODE_RAMP, "│") if unicode else (ASCII_RAMP, "|")
    return _framed(_shaded(ink(strength, -(-side // 2), side).abs(), ramp), bar)


def speaks_unicode(console: Console) -> bool:
    """Whether the terminal shows more than ASCII for sure."""
    return console.encoding.lower().startswith("utf")


def _paints(console: Console) -> bool:
    """Whether the terminal has colours enough for shades; 16 colours are whatever the user's theme says."""
    return console.color_system in ("256", "truecolor") and not console.no_color


def _painted(levels: Float[Tensor, "r c"]) -> Text:
    """Two rows a line: the upper one in the colour of the half block, the lower one behind it.

    Both are painted, so the picture is the same on a light and on a dark background.
    """
    text = Text(end="")
    rows = [[Color.from_rgb(*mix(level)) for level in row] for row in levels.tolist()]
    for upper, lower in zip_longest(rows[::2], rows[1::2]):
        for column, color in enumerate(upper):
            text.append("▀", Style(color=color, bgcolor=lower[column] if lower else None))
        text.append("\n")
    return text


def _halved(levels: Float[Tensor, "r c"]) -> list[str]:
    """Two rows of full or no ink a line."""
    rows = levels.int().tolist()
    pairs = zip_longest(rows[::2], rows[1::2], fillvalue=[0] * levels.shape[1])
    return ["".join(HALVES[pair] for pair in zip(upper, lower, strict=True)) for upper, lower in pairs]


def _shaded(levels: Float[Tensor, "r c"], ramp: str) -> list[str]:
    """One character a cell. Any ink at all gets more than the blank."""
    last = len(ramp) - 1
    return ["".join(ramp[max(level > 0, round(level * last))] for level in row) for row in levels.tolist()]


def _framed(lines: list[str], bar: str) -> Text:
    return Text("\n".join(f"{bar}{line}{bar}" for line in lines))


def _ascii(text: str) -> str:
    return text.replace(" · ", ", ").replace("²", "^2")

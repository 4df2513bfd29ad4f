"""The text of the page that shows all mechanisms: Markdown, the same on every machine."""

import re
from dataclasses import fields
from html import escape

from saccade.attention import MECHANISMS, Mechanism
from saccade.bench.cost import cost
from saccade.bench.pages.examples import example
from saccade.bench.pages.page import NOTE, percent, read_spec, table
from saccade.bench.pages.passage import HEADS, LENGTH
from saccade.bench.shades import FULL_INK
from saccade.claims import Claims

NAME = r"[A-Z][\w'-]+"
AUTHORS = re.compile(rf"({NAME}(?: et al\.|(?:, {NAME})*,? (?:and|&) {NAME})?),? \(?((?:19|20)\d\d)\b(?!\.\d)")
PROMISES = tuple(field.name for field in fields(Claims) if field.name != "state_size")
SMALL = "small"
"""The folder of the small pictures."""

WIDTH = 264
"""Dots across a small picture as it is shown: half of those that it has, for screens that have twice as many."""

FAMILIES = {
    "dense": "Every query meets every key.",
    "patterns": "Which keys a query sees follows from their positions alone; its weights are a softmax over those.",
    "clustering": "Queries and keys are put into groups by what they hold, and meet within them.",
    "sorting": "Blocks of keys are sorted, softly, to the blocks of queries that need them.",
    "low rank": "All keys are made into fewer rows first, and queries look at those.",
    "reordered products": "Without a softmax over pairs, keys and values are summed once, for all queries.",
    "synthesizers": "Weights come without a comparison of queries with keys.",
    "mixtures": "Several mechanisms in one layer, each on heads of its own.",
    "others": "What belongs to none of these.",
}
"""In the order of the page; a family that is not here stands behind, without a word."""

INTRODUCTION = """# Mechanisms

All mechanisms side by side: where two heads of a model look, what is computed, what that costs, and what is promised.
Each name leads to a page with all about it: when to use it and when not, its options, and where it deviates from its
paper."""

COLUMNS = """*operations*: those that a forward pass over 4,096 tokens carries out, next to full attention, with
default options. *state*: how what is kept for decoding token by token grows with the text; - where there is no such
decoding. ✓: promised, and checked by the tests; what is not promised may still hold. What each promise means stands on
[the page of any mechanism](full.md#what-it-promises)."""

PICTURES = f"""## The pictures

A small classifier (2 layers of {HEADS} heads, width 128) learned with full attention to tell from which package of
Python's standard library {LENGTH} bytes of source code come. The pictures show two heads of its last layer, as it
reads a passage that it was not trained on: queries go down, keys across. Each mechanism gets the same queries, keys
and values, and options that suit so short an input. Shades mean the same everywhere: a key's share of all weight that
its query gives, signs aside. White is none, and full ink is {FULL_INK} times what a key would get if all were alike, or
more; orange is below zero. The *overlap*, on the pages, is the share of the weight on which a mechanism and full
attention agree: the smaller of their two weights, summed over the keys, mean over the queries.

They show where a mechanism would look in a model that was trained without it. One that is trained with it learns to
look where it can: `saccade compare` trains one on your data. `saccade show NAME` draws a mechanism with any options at
any length."""


def index() -> str:
    """The page that shows all mechanisms: a table of them, and then each in its family.

    Raises:
        ValueError: as `page`.
    """
    specs = {name: kind() for name, kind in MECHANISMS.items()}
    found = dict.fromkeys([*FAMILIES, *(spec.family for spec in specs.values())])
    members = {family: [name for name in specs if specs[name].family == family] for family in found}
    ordered = [name for names in members.values() for name in names]
    head = ["mechanism", "operations", "state", *(name.replace("_", "<br>") for name in PROMISES)]
    glance = f"## At a glance\n\n{table(head, [_row(name) for name in ordered])}\n\n{COLUMNS}"
    sections = [_section(family, names) for family, names in members.items() if names]
    return "\n\n".join([INTRODUCTION, glance, *sections, PICTURES, f"---\n\n{NOTE}"]) + "\n"


def _row(name: str) -> list[str]:
    """What is promised, as marks."""
    spec, _ = read_spec(name)
    marks = ["✓" if getattr(spec.claims, promise) else "" for promise in PROMISES]
    return [f"[`{name}`]({name}.md)", percent(_share(spec)), spec.claims.state_size or "-", *marks]


def _share(spec: Mechanism) -> float:
    return cost(spec, 4096).computed / cost("full", 4096).computed


def _section(family: str, names: list[str]) -> str:
    """A family: what unites it, and a picture beside the description of each."""
    rows = "\n".join(_card(name) for name in names)
    heading = f"## {family.capitalize()}"
    return "\n\n".join(filter(None, [heading, FAMILIES.get(family), f"<table>\n{rows}\n</table>"]))


def _card(name: str) -> str:
    """A row of two cells: the picture, and what there is to say in a few lines. Empty lines: Markdown within."""
    spec, told = read_spec(name)
    shown = example(name, LENGTH)
    summary = told.summary.partition("\n\n")[0].replace("\n", " ")
    image = f'<img src="{SMALL}/{name}.png" width="{WIDTH}" alt="two heads of {name}">'
    return f"""<tr><td width="{WIDTH + 30}">

<a href="{name}.md">{image}</a><br><sub><code>{escape(str(shown), quote=False)}</code></sub>

</td><td>

**[{name}]({name}.md)**: {summary}

{_code(told.sections["Formula"])}

{_first(told.sections["Cost"])} State: {spec.claims.state_size or "none"}. *{_paper(told.sections["Source"])}*

</td></tr>"""


def _code(text: str) -> str:
    """Lines of code that wrap, as a block in a table would not; a space for each backtick that is in them."""
    lines = (line.replace("`", " ").strip() for line in text.splitlines())
    return "<br>\n".join(f"`{line}`" for line in lines if line)


def _first(text: str) -> str:
    """The first sentence, and its dot."""
    return re.split(r"(?<=[.])\s+(?=[A-Z`])", " ".join(text.split()), maxsplit=1)[0]


def _paper(source: str) -> str:
    """The first authors and year that are named, as `Vaswani et al. 2017`; the first sentence where there are none."""
    text = " ".join(source.split())
    if not (found := AUTHORS.search(text)):
        return text.partition(". ")[0]
    people, year = found.groups()
    # Two names are written out, more are not.
    first, *others = people.split(", ")
    return f"{first} et al. {year}" if others else f"{people} {year}"

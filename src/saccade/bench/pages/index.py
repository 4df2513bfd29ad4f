"""The text of the page that lists all mechanisms: Markdown, the same on every machine."""

import re

from saccade.attention import MECHANISMS
from saccade.bench.cost import cost
from saccade.bench.pages.page import NOTE, percent, read_spec, table
from saccade.bench.pages.passage import HEADS, LENGTH
from saccade.bench.shades import FULL_INK

NAME = r"[A-Z][\w'-]+"
AUTHORS = re.compile(rf"({NAME}(?: et al\.|(?:, {NAME})*,? (?:and|&) {NAME})?),? \(?((?:19|20)\d\d)\b(?!\.\d)")

INTRODUCTION = """# Mechanisms

Each has a page: what it does and what it costs, a picture, when to use it and when not, what it promises, and where it
is from."""

COLUMNS = """*operations*: those that a forward pass over 4,096 tokens carries out, next to full attention, with
default options. *causal*: whether it can hide later tokens. *state*: how what is kept for decoding token by token
grows with the text; - where there is no such decoding."""

PICTURES = f"""## The pictures

A small classifier (2 layers of {HEADS} heads, width 128) learned with full attention to tell from which package of
Python's standard library {LENGTH} bytes of source code come. The pictures show two heads of its last layer, as it
reads a passage that it was not trained on. Each mechanism gets the same queries, keys and values, and options that
suit so short an input. Shades mean the same everywhere: a key's share of all weight that its query gives, signs aside.
White is none, and full ink is {FULL_INK} times what a key would get if all were alike, or more. The *overlap* is the
share of the weight on which a mechanism and full attention agree: the smaller of their two weights, summed over the
keys, mean over the queries.

They show where a mechanism would look in a model that was trained without it. One that is trained with it learns to
look where it can: `saccade compare` trains one on your data. `saccade show NAME` draws a mechanism with any options at
any length."""


def index() -> str:
    """The page that lists all mechanisms.

    Raises:
        ValueError: as `page`.
    """
    head = ["mechanism", "what it is", "operations", "causal", "state", "source"]
    rows = table(head, [_row(name) for name in MECHANISMS])
    return "\n\n".join([INTRODUCTION, rows, COLUMNS, PICTURES, f"---\n\n{NOTE}"]) + "\n"


def _row(name: str) -> list[str]:
    spec, told = read_spec(name)
    share = cost(spec, 4096).computed / cost("full", 4096).computed
    causal = "yes" if spec.claims.causal else "no"
    state = spec.claims.state_size or "-"
    summary = told.summary.partition("\n\n")[0].replace("\n", " ")
    return [f"[`{name}`]({name}.md)", summary, percent(share), causal, state, _paper(told.sections["Source"])]


def _paper(source: str) -> str:
    """The first authors and year that are named, as `Vaswani et al. 2017`; the first sentence where there are none."""
    text = " ".join(source.split())
    if not (found := AUTHORS.search(text)):
        return text.partition(". ")[0]
    people, year = found.groups()
    # Two names are written out, more are not.
    first, *others = people.split(", ")
    return f"{first} et al. {year}" if others else f"{people} {year}"
